"""AVIF's and JPEG 2000's boxes: those of metadata get a name that decoders pass over. ISO/IEC 14496-12 and 15444-1."""

from collections.abc import Iterator

from raypipe.data.metadata.bare import Bare

_PASSED_OVER = b"skip"
_METADATA = (b"Exif", b"mime")
"""Types of AVIF's items that hold EXIF and XMP."""
_RESOLUTION = b"res "


def bare_avif(data: bytes) -> Bare:
    """Hides the items of metadata; how the picture is turned is a property of its own, which the decoder reads."""
    found = []
    for start, end in _boxes(data, b"meta", 0, len(data)):
        for first, last in _boxes(data, b"iinf", start + 4, end):
            entries = first + (6 if data[first : first + 1] == b"\0" else 8)
            for entry, stop in _boxes(data, b"infe", entries, last):
                version = data[entry]
                place = entry + (8 if version == 2 else 10)
                if version in (2, 3) and place + 4 <= stop and data[place : place + 4] in _METADATA:
                    found.append(place)
    return _renamed(data, found)


def bare_jpeg2000(data: bytes) -> Bare:
    """Hides the resolution in the header; the other boxes of metadata stand where the decoder doesn't look."""
    found = []
    for start, end in _boxes(data, b"jp2h", 0, len(data)):
        found += [place for place, _ in _boxes(data, _RESOLUTION, start, end)]
    return _renamed(data, [place - 4 for place in found])


def _renamed(data: bytes, places: list[int]) -> Bare:
    if not places:
        return Bare(data)
    changed = bytearray(data)
    for place in places:
        changed[place : place + 4] = _PASSED_OVER
    return Bare(bytes(changed))


def _boxes(data: bytes, kind: bytes, place: int, end: int) -> Iterator[tuple[int, int]]:
    """Yields where the content of each box of a kind begins and ends, in the content of a box or in the file."""
    while place + 8 <= end:
        size, head = int.from_bytes(data[place : place + 4], "big"), 8
        if size == 1:
            size, head = int.from_bytes(data[place + 8 : place + 16], "big"), 16
        stop = place + size if size else end
        if stop > end or stop < place + head:
            return
        if data[place + 4 : place + 8] == kind:
            yield place + head, stop
        place = stop
