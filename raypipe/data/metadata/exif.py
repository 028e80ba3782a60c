"""How a picture is to be turned: EXIF's orientation, in an EXIF block or in XMP.

A damaged block is read as far as it goes: one wrong entry doesn't hide the others, as it would from a reader of all
of EXIF.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

ORIENTATION = 0x0112
"""The tag."""

_SIZES = {1: 1, 3: 2, 4: 4}
"""Bytes of a value, by the types that a number is written in: BYTE, SHORT, LONG."""
Order = Literal["little", "big"]
"""Of a number's bytes."""

_ORDERS: dict[bytes, Order] = {b"II": "little", b"MM": "big"}
_IN_XMP = re.compile(rb'tiff:Orientation\s*(?:=\s*["\']|>)\s*([1-8])\b')


class Entry(NamedTuple):
    """An entry of a TIFF directory."""

    tag: int
    raw: bytes
    """12 bytes, or 20 in a BigTIFF."""


class Directory(NamedTuple):
    """The first directory of a TIFF file, or of an EXIF block, which is a small one."""

    order: Order
    big: bool
    """A BigTIFF, whose numbers have 64 bits."""
    place: int
    """Of its first byte."""
    entries: tuple[Entry, ...]
    """As many as the file holds."""

    @property
    def orientation(self) -> int | None:
        """What its entry says; None without one."""
        for entry in self.entries:
            kind = int.from_bytes(entry.raw[2:4], self.order)
            if entry.tag == ORIENTATION and kind in _SIZES:
                start = 12 if self.big else 8
                return _checked(int.from_bytes(entry.raw[start : start + _SIZES[kind]], self.order))
        return None


def read_directory(data: bytes) -> Directory | None:
    """Returns the first directory; None if there is none that can be found."""
    order = _ORDERS.get(data[:2])
    if order is None or (version := int.from_bytes(data[2:4], order)) not in (42, 43):
        return None
    big = version == 43
    place = int.from_bytes(data[8:16] if big else data[4:8], order)
    if not 8 <= place < len(data):
        return None
    count_size, size = (8, 20) if big else (2, 12)
    start = place + count_size
    number = min(int.from_bytes(data[place:start], order), (len(data) - start) // size)
    return Directory(order, big, place, tuple(_entries(data, start, number, size, order)))


def _entries(data: bytes, start: int, number: int, size: int, order: Order) -> Iterator[Entry]:
    for place in range(start, start + number * size, size):
        raw = data[place : place + size]
        yield Entry(int.from_bytes(raw[:2], order), raw)


def exif_orientation(block: bytes) -> int | None:
    """Returns the orientation of an EXIF block; None where it states none."""
    while block.startswith(b"Exif\0\0"):
        block = block[6:]
    directory = read_directory(block)
    return None if directory is None else directory.orientation


def xmp_orientation(packet: bytes) -> int | None:
    """Returns the orientation of an XMP packet; None where it states none."""
    match = _IN_XMP.search(packet)
    return int(match[1]) if match else None


def _checked(value: int) -> int | None:
    return value if 1 <= value <= 8 else None
