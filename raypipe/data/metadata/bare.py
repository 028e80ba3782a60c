"""What is left of an image file without its metadata."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Bare:
    """An image file without what costs no pixel."""

    data: bytes
    """The file's content."""
    orientation: int | None = None
    """EXIF's 1..8, as the metadata state it; None leaves it to the decoder."""
    significant_bits: int | None = None
    """Most bits that a sample uses, as the metadata state it; None where they don't."""


def join(data: bytes, kept: Sequence[tuple[int, int]]) -> bytes:
    """Returns some ranges (first byte, end) of a file, one after the other; the file itself where that is all of it."""
    if sum(end - start for start, end in kept) == len(data):
        return data
    return b"".join(data[start:end] for start, end in kept)
