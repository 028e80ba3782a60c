"""TIFF's tags: those that make pixels, and the others. https://www.itu.int/itudoc/itu-t/com16/tiff-fx/docs/tiff6.pdf."""

from raypipe.data.metadata.bare import Bare
from raypipe.data.metadata.exif import ORIENTATION, read_directory

_PIXELS = {
    *(254, 255, 256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284),  # kind, size, samples, strips
    *(292, 293, 317, 320, 322, 323, 324, 325),  # fax, predictor, palette, tiles
    *(332, 334, 338, 339, 340, 341, 347),  # inks, extra samples, format and range, JPEG's tables
    *range(512, 522),  # JPEG as it once was
    *(529, 530, 531, 532, 50674, 0xBC01),  # YCbCr, LERC, and a kind of file that is refused by this tag
    ORIENTATION,
}


def bare_tiff(data: bytes) -> Bare:
    """Keeps the tags of the first page that make pixels; its orientation is left to the decoder, which applies it."""
    directory = read_directory(data)
    if directory is None or all(entry.tag in _PIXELS for entry in directory.entries):
        return Bare(data)
    kept = [entry.raw for entry in directory.entries if entry.tag in _PIXELS]
    count = len(kept).to_bytes(8 if directory.big else 2, directory.order)
    # Fewer entries than before, in the same place, and no other page behind them.
    changed = b"".join([count, *kept, bytes(8 if directory.big else 4)])
    return Bare(data[: directory.place] + changed + data[directory.place + len(changed) :])
