"""WebP's chunks: those that make pixels, and the others. https://developers.google.com/speed/webp/docs/riff_container."""

from raypipe.data.metadata.bare import Bare
from raypipe.data.metadata.exif import exif_orientation, xmp_orientation

_PIXELS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF")
_METADATA_FLAGS = 0x20 | 0x08 | 0x04
"""Of VP8X: there are a colour profile, EXIF, XMP."""


def bare_webp(data: bytes) -> Bare:
    """Keeps the chunks that make pixels, and of an animation the first frame."""
    kept: list[bytes] = []
    place = 12
    in_exif: int | None = None
    in_xmp: int | None = None
    while place + 8 <= len(data):
        kind, size = data[place : place + 4], int.from_bytes(data[place + 4 : place + 8], "little")
        end = place + 8 + size + size % 2
        if kind == b"EXIF":
            in_exif = in_exif or exif_orientation(data[place + 8 : end])
        elif kind == b"XMP ":
            in_xmp = in_xmp or xmp_orientation(data[place + 8 : end])
        elif kind in _PIXELS and not (kind == b"ANMF" and b"ANMF" in (chunk[:4] for chunk in kept)):
            chunk = data[place:end]
            if kind == b"VP8X" and size >= 1:
                chunk = chunk[:8] + bytes([chunk[8] & ~_METADATA_FLAGS]) + chunk[9:]
            kept.append(chunk)
        place = end
    content = b"WEBP" + b"".join(kept)
    return Bare(b"RIFF" + len(content).to_bytes(4, "little") + content, in_exif or in_xmp or 1)
