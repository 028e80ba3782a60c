"""Where something is and what made it: the only way in which steps hand on what they have made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

NOT_IN_DIGEST: Mapping[str, bool] = {"digest": False}
"""Metadata of a field that can't change a byte of an output, such as where it is written to, or that another field of
the same plan holds as it is used. Of a dataclass: `field(metadata=NOT_IN_DIGEST)`; of a section of the config:
`Annotated[..., NOT_IN_DIGEST]`."""


@dataclass(frozen=True)
class Artifact:
    """Something that a step has made.

    Two artifacts with equal digests hold the same, wherever they are.
    """

    uri: str
    """Folder."""
    digest: str
    """12 hex digits: of a checkpoint those of its content, of a stream's folder those of its plan."""


def identity(value: Any) -> Any:
    """What a value is, as JSON: the part of it that can change an output.

    An artifact is known by its digest, a section of the config by its values, and a dataclass by its class and the
    fields that its constructor takes; fields that are marked `NOT_IN_DIGEST` don't count.
    """
    if isinstance(value, Artifact):
        return value.digest
    if isinstance(value, BaseModel):
        known = [name for name, field in type(value).model_fields.items() if NOT_IN_DIGEST not in field.metadata]
        return {name: identity(getattr(value, name)) for name in known}
    if is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in fields(value) if each.init and each.metadata.get("digest", True)]
        return {"class": type(value).__name__} | {name: identity(getattr(value, name)) for name in names}
    if isinstance(value, pa.Schema):
        return {field.name: str(field.type) for field in value}
    if isinstance(value, Mapping):
        return {str(name): identity(part) for name, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        parts = [identity(part) for part in value]
        return sorted(parts) if isinstance(value, set | frozenset) else parts
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise TypeError(f"{type(value).__name__} has no identity: a digest can't hold {value!r}")


def digest(value: Any) -> str:
    """12 hex digits of a value's identity."""
    return hashlib.sha256(json.dumps(identity(value), sort_keys=True).encode()).hexdigest()[:12]
