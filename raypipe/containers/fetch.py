"""Fetches byte ranges of many containers at once, and says of each why it couldn't be fetched."""

from collections.abc import Sequence
from typing import NamedTuple

import fsspec


class Range(NamedTuple):
    """Bytes of a file from `start` up to `end`, not included; a negative start without end means the last bytes."""

    path: str
    start: int
    end: int | None


def fetch_ranges(fs: fsspec.AbstractFileSystem, ranges: Sequence[Range]) -> list[bytes | Exception]:
    """Returns each range's bytes, or why there are none; over a network, ranges are fetched in parallel.

    A range that goes beyond the file's end has fewer bytes, perhaps none.
    """
    paths, starts, ends = ([each[field] for each in ranges] for field in range(3))
    found = fs.cat_ranges(paths, starts, ends, on_error="return") if ranges else []
    return [_checked(each, content) for each, content in zip(ranges, found, strict=True)]


def _checked(wanted: Range, content: bytes | Exception) -> bytes | Exception:
    if isinstance(content, Exception):
        return b"" if _begins_beyond_the_end(content) else content
    if wanted.end is not None and len(content) > wanted.end - wanted.start:
        return ValueError(
            f"{wanted.path}: the server answers with {len(content)} bytes where {wanted.end - wanted.start} were asked "
            "for: it knows no ranges. Bring the container to a store that does"
        )
    return content


def _begins_beyond_the_end(error: Exception) -> bool:
    """Whether a server refuses a range because the file ends before it (HTTP 416)."""
    answer = getattr(error.__cause__, "response", None) or {}  # botocore's
    code = answer.get("Error", {}).get("Code") if isinstance(answer, dict) else None
    return code in ("InvalidRange", "416") or getattr(error, "status", None) == 416  # aiohttp's
