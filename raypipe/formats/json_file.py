"""JSON that others wrote: read whole, taken apart with errors that say where."""

import json
from typing import Any

from raypipe import storage


def read_json(uri: str) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: if there is none.
        ValueError: if it is no JSON.
    """
    try:
        return json.loads(storage.read_bytes(uri))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{uri} is no JSON: {error}") from error


def take(record: Any, name: str, kind: type | tuple[type, ...], *, place: str) -> Any:
    """A field of an object.

    Args:
        record: the object.
        name: of the field.
        kind: what it has to be.
        place: where the object stands, for the error.

    Raises:
        ValueError: if it is missing, or something else.
    """
    value = record.get(name) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        kinds = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
        raise ValueError(f"{place}: {name!r} is {str(value)[:80]!r}, needed is {kinds}")  # noqa: TRY004 - the file's mistake
    return value
