"""Finds rows that fail only because a node lacks a mount that others have, or may not read it: no fault of theirs.

A file that is missing everywhere is its row's fault. The driver's node is asked first, which takes a millisecond;
another one only where many rows of a block fail alike.
"""

import errno
from collections.abc import Sequence

import pyarrow as pa

from raypipe import storage
from raypipe import uri as uris
from raypipe.cluster.mounts import readable
from raypipe.containers.place import split_place
from raypipe.outputs.records import RECORD_FILE
from raypipe.outputs.sink import ShardWriter
from raypipe.streams.guard import Guard

MOST_TRIED = 8
"""Files of a block that are looked for elsewhere."""

_UNREAD = (FileNotFoundError, PermissionError, NotADirectoryError)
"""Errors of files that may be missing only here."""


def check_rows(guard: Guard, before: pa.Table, after: pa.Table) -> None:
    """Makes sure that no row failed for a local file that can be read on another node.

    Args:
        guard: knows the other nodes.
        before: rows, with the URIs of what they are made of.
        after: the same rows, computed.

    Raises:
        OSError: one can, with a number that is the node's fault.
    """
    if after["error_stage"].null_count == len(after):
        return
    names = [field.name for field in before.schema if field.name.endswith("_uri")]
    was, reasons = before["error_stage"].to_pylist(), after["error_reason"].to_pylist()
    starts = tuple(f"{error.__name__}:" for error in _UNREAD)
    failed = [
        index
        for index, reason in enumerate(reasons)
        if was[index] is None and reason is not None and reason.startswith(starts)
    ]
    rows = before.select(names).take(pa.array(failed, pa.int64())).to_pylist()
    found = [_local(uri) for row in rows for uri in row.values() if uri]
    _check(guard, [path for path in found if path is not None], many=2 <= len(failed) >= len(after) / 2)


def check_error(guard: Guard, error: Exception) -> None:
    """Makes sure that an error isn't about a local file that can be read on another node.

    Raises:
        OSError: it is, with a number that is the node's fault.
    """
    if isinstance(error, _UNREAD) and isinstance(error.filename, str):
        _check(guard, [error.filename], many=True)


def check_out(writer: ShardWriter) -> None:
    """Makes sure that a local `out` is the run's, and not the place of a mount that is missing.

    Raises:
        OSError: it isn't, with a number that is the node's fault.
    """
    record = _local(storage.join(writer.folder, RECORD_FILE))
    if record is not None and not readable([record]):
        raise OSError(errno.ENODEV, f"{writer.folder} isn't the run's folder on this node: is its mount missing?")


def _check(guard: Guard, paths: Sequence[str], *, many: bool) -> None:
    paths = list(dict.fromkeys(paths))[:MOST_TRIED]
    here = set(readable(paths))
    unread = [path for path in paths if path not in here]
    if unread and (elsewhere := guard.readable_elsewhere(unread, ask_all=many)):
        reason = f"{elsewhere[0]} can be read on another node, not on this one: is its mount missing?"
        raise OSError(errno.ENODEV, reason)


def _local(uri: str) -> str | None:
    """The path of a local file; None of others, and of what is no URI."""
    container, _ = split_place(uri)
    try:
        return storage.filesystem(container)[1] if uris.is_local(container) else None
    except ValueError:
        return None
