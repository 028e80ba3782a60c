"""Takes out of an image file what costs no pixel, before a decoder sees it.

Colour profiles, texts, comments, EXIF blocks and later frames are where decoders stumble most: over one that is large,
damaged, or made to expand to gigabytes. None of it changes a pixel that raypipe uses, so it never reaches a decoder.
Two things are read here first: how the picture is to be turned, and how many bits of a sample are in use.

A file whose structure can't be followed is passed on as it is: its decoder then says what is wrong.
"""

from raypipe.data.metadata.bare import Bare
from raypipe.data.metadata.boxes import bare_avif, bare_jpeg2000
from raypipe.data.metadata.gif import bare_gif
from raypipe.data.metadata.jpeg import bare_jpeg
from raypipe.data.metadata.png import bare_png
from raypipe.data.metadata.tiff import bare_tiff
from raypipe.data.metadata.webp import bare_webp

__all__ = ["Bare", "without_metadata"]


_READERS = (
    (0, b"\x89PNG\r\n\x1a\n", bare_png),
    (0, b"\xff\xd8\xff", bare_jpeg),
    (8, b"WEBP", bare_webp),
    *((0, start, bare_tiff) for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((0, start, bare_gif) for start in (b"GIF87a", b"GIF89a")),
    (4, b"ftyp", bare_avif),
    (4, b"jP  \r\n\x87\n", bare_jpeg2000),
)
"""Place and bytes by which a format is known, and who takes its metadata out."""


def without_metadata(data: bytes) -> Bare:
    """Returns a file's content without its metadata; that of an unknown format as it is."""
    for place, start, reader in _READERS:
        if data.startswith(start, place):
            return reader(data)
    return Bare(data)
