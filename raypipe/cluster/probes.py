"""Tries what a run does at a place: a small file is written, read, listed and deleted, and seen from elsewhere."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from raypipe import storage
from raypipe.uri import name_of

PROBES = ".doctor"
"""Folder of the probes under `out`: listing `out` itself could take long."""


@contextmanager
def probing(out: str) -> Iterator[tuple[str, list[str]]]:
    """Writes, reads and lists a probe; deletes it, and the folders that it needed, at the end.

    Yields:
        The probe's URI and what doesn't work. That is complete at the end only.
    """
    folder, name = storage.join(out, PROBES), uuid.uuid4().hex
    uri = storage.join(folder, name)
    new: list[Path] = []
    problems: list[str] = []
    doing = "opened"
    try:
        new = _new_folders(uri)
        doing = "written to"
        storage.write_bytes_atomic(uri, name.encode())
        doing = "read from"
        if storage.read_bytes(uri) != name.encode():
            problems.append("other bytes are read than were written")
        doing = "listed"
        if not any(found.endswith(name) for found in storage.list_files(folder)):
            problems.append("a file that was written isn't listed")
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and all of them are findings
        reason = describe(error).replace(f"/{PROBES}/{name}", "")  # so that machines say the same of the same fault
        problems.append(f"can't be {doing}: {reason}")
    try:
        yield uri, problems
    finally:
        if doing in ("read from", "listed"):
            try:
                storage.delete(uri)
            except Exception as error:  # noqa: BLE001 - as above
                problems.append(f"{uri} can't be deleted: {describe(error)}")
        for path in new:
            with suppress(OSError):  # another machine's probe is in it, or it was never made
                path.rmdir()


def hidden(beacon: str) -> str | None:
    """Why a probe, whose content is its name, can't be seen from here; None where it can."""
    try:
        return None if storage.read_bytes(beacon).decode() == name_of(beacon) else "it holds something else"
    except FileNotFoundError:
        return "there is no such file"
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own
        return describe(error)


def absent(uri: str) -> str | None:
    """Why a file isn't there; None where it is."""
    try:
        return None if storage.exists(uri) else "there is no such file"
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own
        return describe(error)


def describe(error: Exception) -> str:
    """An error in a line."""
    return f"{type(error).__name__}: {error}"[:300]


def _new_folders(uri: str) -> list[Path]:
    """Local folders that a file needs and that aren't there, the innermost first; object stores have none."""
    fs, path = storage.filesystem(uri)
    if "file" not in fs.protocol:
        return []
    return [parent for parent in Path(path).parents if not parent.exists()]
