"""Reads parts of large files: headers by blocks, and ranges of bytes."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, cast

from raypipe.containers.fetch import Range, fetch_ranges
from raypipe.containers.members import LARGEST_REQUEST, SMALL_GAP
from raypipe.storage.explain import about, explain_all
from raypipe.storage.filesystems import awaited, filesystem

_BLOCK = 256 * 2**10
"""Bytes that are fetched together of a file whose header is read."""


def read_ranges(uri: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
    """Returns a file's bytes from each start up to each end; fewer where the file ends before.

    What lies close together comes by one request.

    Raises:
        OSError: (or a ValueError) as of `read_bytes`.
    """
    with about(uri):
        fs, path = filesystem(uri)
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start - joined[-1][1] <= SMALL_GAP and max(end, joined[-1][1]) - joined[-1][0] <= LARGEST_REQUEST:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    with awaited(uri):
        contents = fetch_ranges(fs, [Range(path, *each) for each in joined])
    starts = [start for start, _ in joined]
    found = []
    for start, end in ranges:
        index = bisect_right(starts, start) - 1
        content = {uri: contents[index]}
        explain_all(content)
        if isinstance(data := content[uri], Exception):
            raise data
        found.append(data[start - starts[index] : end - starts[index]])
    return found


def version(uri: str) -> str:
    """Returns a text that changes when the file is replaced: of its size and time, or of what its store says."""
    with about(uri), awaited(uri):
        fs, path = filesystem(uri)
        return cast(str, fs.ukey(path))


@contextmanager
def open_blocks(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file of which blocks are fetched around what is asked for, and kept while it is open."""
    with about(uri):
        fs, path = filesystem(uri)
        with fs.open(path, "rb", cache_type="blockcache", block_size=_BLOCK) as file:
            yield file
