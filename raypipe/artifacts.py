"""Where something is and what made it: the only way in which steps hand on what they have made."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from pydantic import BaseModel

NOT_IN_DIGEST: Mapping[str, bool] = {"digest": False}
"""Metadata of a dataclass's field that can't change a byte of an output, such as where it is written to."""


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

    An artifact is known by its digest, a section of the config by its values, and a dataclass by its class and those of
    its fields that its constructor takes and that aren't marked `NOT_IN_DIGEST`.
    """
    if isinstance(value, Artifact):
        return value.digest
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        known = [field for field in fields(value) if field.init and field.metadata.get("digest", True)]
        return {"class": type(value).__name__} | {field.name: identity(getattr(value, field.name)) for field in known}
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
