"""JPEG's segments before the first scan: those that make pixels, and the others."""

from raypipe.data.metadata.bare import Bare, join
from raypipe.data.metadata.exif import exif_orientation, xmp_orientation

_SCAN = 0xDA
_COMMENT = 0xFE
_ALONE = (0x01, *range(0xD0, 0xDA))
"""Markers without a segment."""
_APPLICATION = range(0xE0, 0xF0)
_XMP = b"http://ns.adobe.com/xap/1.0/\0"


def bare_jpeg(data: bytes) -> Bare:
    """Keeps tables, frame and scans, and of the application's segments those that say what the colours are.

    The pictures behind the first one of an MPO go with the segment that says where they are.
    """
    kept = [(0, 2)]
    place = 2
    in_exif: int | None = None
    in_xmp: int | None = None
    while (place := data.find(b"\xff", place)) >= 0 and place + 4 <= len(data):  # decoders skip what is between, too
        marker = data[place + 1]
        if marker in (0x00, 0xFF):
            place += 1
            continue
        if marker in _ALONE:
            kept.append((place, place + 2))
            place += 2
            continue
        if marker == _SCAN:
            break
        start = place + 4
        end = place + 2 + max(2, int.from_bytes(data[place + 2 : start], "big"))
        if marker in _APPLICATION or marker == _COMMENT:
            content = data[start:end]
            if marker == 0xE1 and in_exif is None and content.startswith(b"Exif\0\0"):
                in_exif = exif_orientation(content)
            elif marker == 0xE1 and in_xmp is None and content.startswith(_XMP):
                in_xmp = xmp_orientation(content)
            elif _says_colours(marker, content):
                kept.append((place, end))
        else:
            kept.append((place, end))
        place = end
    if place >= 0:
        kept.append((min(place, len(data)), len(data)))
    return Bare(join(data, kept), in_exif or in_xmp or 1)


def _says_colours(marker: int, content: bytes) -> bool:
    """Whether libjpeg decides by the segment what colours the components are: JFIF's and Adobe's, if they are whole."""
    jfif = marker == 0xE0 and content.startswith(b"JFIF\0") and len(content) >= 14
    return jfif or (marker == 0xEE and content.startswith(b"Adobe") and len(content) >= 12)
