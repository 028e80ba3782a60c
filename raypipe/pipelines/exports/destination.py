"""Whether a folder is free for an export: by what is asked for, which is known before the masks are, then by rows."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from raypipe import storage, uri
from raypipe.formats.base import Options
from raypipe.outputs.records import MixedOutputs

ASKED_FILE = "asked.json"
"""Says what the export of a folder was asked for, in the folder of its own books."""
ROWS_FILE = "digest"
"""Says of which rows and masks it is, likewise."""


def what_is_asked(
    name: str, classes: Sequence[str], options: Options, *, of_truth: bool, min_confidence: float
) -> dict[str, Any]:
    """What tells an export from others without its masks and rows, as JSON has it.

    Args:
        name: of the format.
        classes: of the manifest.
        options: as they were given.
        of_truth: true masks are exported.
        min_confidence: pixels of less confidence are ignored.
    """
    masks = "true masks" if of_truth else "a run's masks"
    asked = {"format": name, "masks": masks, "classes": list(classes), "min_confidence": float(min_confidence)}
    return asked | {name: asdict(options)[name] for name in ("instances", "min_area", "tolerance", "copy_images")}


def refuse_other(books: str, asked: dict[str, Any]) -> None:
    """Refuses a folder that holds an export which was asked for otherwise.

    Args:
        books: URI of the folder of the export's own books.
        asked: as `what_is_asked` returns it.

    Raises:
        MixedOutputs: it holds such an export.
    """
    place = storage.join(books, ASKED_FILE)
    if not storage.exists(place):
        return
    found = json.loads(storage.read_bytes(place))
    if other := next((name for name, value in asked.items() if found.get(name) != value), None):
        raise MixedOutputs(
            f"{uri.parent(books)} holds another export ({other} {json.dumps(found.get(other))[:80]}, and not "
            f"{json.dumps(asked[other])[:80]}): give another folder, or delete it"
        )


def note_asked(books: str, asked: dict[str, Any]) -> None:
    """Writes down what an export was asked for."""
    storage.write_bytes_atomic(storage.join(books, ASKED_FILE), json.dumps(asked, indent=1).encode())


def refuse_other_rows(books: str, digest: str) -> None:
    """Refuses a folder that holds an export of other rows or masks.

    Args:
        books: as of `refuse_other`.
        digest: of the export with its rows and masks.

    Raises:
        MixedOutputs: it holds such an export.
    """
    place = storage.join(books, ROWS_FILE)
    if storage.exists(place) and storage.read_bytes(place).decode() != digest:
        raise MixedOutputs(
            f"{uri.parent(books)} holds an export of other rows or masks, as the manifest, its labels or the run have "
            "changed since: give another folder, or delete it"
        )


def note_rows(books: str, digest: str) -> None:
    """Writes down of which rows and masks an export is; arguments as of `refuse_other_rows`."""
    storage.write_bytes_atomic(storage.join(books, ROWS_FILE), digest.encode())
