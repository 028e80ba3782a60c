"""PNG's chunks: those that make pixels, and the others. https://www.w3.org/TR/png-3/."""

import zlib
from binascii import Error as HexError

from raypipe.data.metadata.bare import Bare, join
from raypipe.data.metadata.exif import exif_orientation, xmp_orientation

_LARGEST_TEXT = 2**20
"""Bytes that a compressed text may expand to, which are looked through for an orientation; others aren't expanded."""
_TRANSPARENT_BYTES = {0: 2, 2: 6, 3: 1}
"""Fewest bytes of transparency by colour type; the other types have none."""


def bare_png(data: bytes) -> Bare:
    """Keeps the chunks that make pixels; those of an animation aren't among them, so that its first picture stays.

    A chunk of transparency whose checksum is wrong doesn't count, as to libpng. Checksums of the others that stay are
    the decoder's business.
    """
    kept = [(0, 8)]
    place, colour_type, depth = 8, -1, 8
    orientation: int | None = None
    bits: int | None = None
    while place + 8 <= len(data):
        length, kind = int.from_bytes(data[place : place + 4], "big"), data[place + 4 : place + 8]
        start, end = place + 8, place + 12 + length
        if not kind.isalpha():
            kept.append((place, len(data)))
            break
        needed = not kind[0] & 0x20  # bit 5 says "ancillary": decoders may leave such a chunk out
        if end > len(data):
            if needed:
                kept.append((place, len(data)))
            break
        content = b"" if needed else data[start : end - 4]
        if kind == b"IHDR" and length >= 13:
            depth, colour_type = data[start + 8], data[start + 9]
        elif kind == b"tRNS":
            right = zlib.crc32(data[start - 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
            needed = right and _TRANSPARENT_BYTES.get(colour_type, length + 1) <= length <= 256
        elif kind == b"sBIT" and depth == 16:
            bits = max(content[: 3 if colour_type in (2, 6) else 1], default=0) or None
        elif not needed and orientation is None:
            orientation = _orientation(kind, content)
        if needed:
            if kept[-1][1] == place:
                kept[-1] = (kept[-1][0], end)
            else:
                kept.append((place, end))
        if kind == b"IEND":
            break
        place = end
    return Bare(join(data, kept), orientation or 1, bits)


def _orientation(kind: bytes, content: bytes) -> int | None:
    """What a chunk says: EXIF in a chunk of its own or, as ImageMagick once wrote it, in hexadecimal text, or XMP."""
    if kind == b"eXIf":
        return exif_orientation(content)
    if kind in (b"tEXt", b"zTXt", b"iTXt"):
        key, _, rest = content.partition(b"\0")
        if key == b"XML:com.adobe.xmp" and kind == b"iTXt":
            packed = rest[:1] == b"\1"
            text = rest[2:].split(b"\0", 2)[-1]
            return xmp_orientation(_expand(text) if packed else text)
        if key == b"Raw profile type exif" and kind in (b"tEXt", b"zTXt"):
            text = _expand(rest[1:]) if kind == b"zTXt" else rest
            try:
                return exif_orientation(bytes.fromhex(b"".join(text.split(b"\n")[3:]).decode("ascii")))
            except (ValueError, HexError):
                return None
    return None


def _expand(packed: bytes) -> bytes:
    """Returns the text, or nothing where it is damaged or larger than what is looked through."""
    expander = zlib.decompressobj()
    try:
        text = expander.decompress(packed, _LARGEST_TEXT)
    except zlib.error:
        return b""
    return b"" if expander.unconsumed_tail else text
