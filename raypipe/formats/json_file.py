"""Reads JSON files of other programs, with errors that say where something is wrong."""

import json
from typing import Any

from raypipe import storage


def read_json(uri: str) -> Any:
    """Returns the content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't JSON.
    """
    try:
        return json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{uri} is no JSON: {error}") from error


def take(record: Any, name: str, kind: type | tuple[type, ...], *, place: str) -> Any:
    """Returns a field of a JSON object after checking its type.

    Args:
        record: the object.
        name: name of the field.
        kind: expected type or types.
        place: where the object is in the file, for the error.

    Raises:
        ValueError: the field is missing or of another type.
    """
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{place}: expected {name!r} of type {kinds}, got {str(value)[:80]!r}")  # noqa: TRY004 - the file's mistake
    return value
