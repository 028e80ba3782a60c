"""Exports masks as GeoTIFF: coordinate system and transformation are the image's, tag by tag.

Pixels are class ids in the colours that all tools show them in, 255 is "no data". Masks of any size are written, in
tiles. An image that lies nowhere on Earth has a TIFF without coordinates. The confidence isn't exported.
"""

import io

import numpy as np
from numpy.typing import NDArray

from raypipe.data.scenes import read_geotags
from raypipe.data.tiff import GeoTag
from raypipe.formats.base import ExportRow, Format, MaskRow, Options, Rendered, Rows, write_lists, write_text
from raypipe.formats.labelmap import write_labelmap
from raypipe.formats.palette import voc_colors
from raypipe.schema import IGNORE

_SIDE = 256
_ASCII, _NODATA_TAG = 2, 42113


class GeoTiff(Format):
    """`masks/<split>/`, `splits/<split>.txt`, `labelmap.txt`; images, if exported, in `images/<split>/`."""

    any_size = True

    def __init__(self, classes: tuple[str, ...], options: Options | None = None) -> None:
        super().__init__(classes, options)
        try:
            import tifffile  # noqa: F401 - said before hours of masks
        except ImportError as error:
            raise ValueError("geotiff needs tifffile: run pip install -e '.[raster]' in raypipe's clone") from error

    def image_folder(self, folder: str) -> str | None:
        """Returns one folder for each split."""
        return f"images/{folder}"

    def mask_file(self, row: ExportRow) -> str:
        """Returns the TIFF's path."""
        return f"masks/{row.folder}/{row.stem}.tif"

    def render(self, row: MaskRow) -> Rendered:
        """Returns the mask's file.

        Raises:
            OSError: the image, whose header says where it lies, can't be fetched.
        """
        content = encode_geotiff(row.mask, read_geotags(row.image_uri) if row.image_uri else ())
        return Rendered(files={self.mask_file(row): content})

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the lists of images, and the classes' names and colours."""
        write_lists(rows, out, path="splits/{split}.txt", line=lambda row: row.stem)
        write_text(out, "labelmap.txt", write_labelmap(self.classes, voc_colors().tolist()))


def encode_geotiff(mask: NDArray[np.uint8], geotags: tuple[GeoTag, ...]) -> bytes:
    """Encodes class ids (H, W) as a TIFF in tiles, with the tags that say where it lies."""
    from tifffile import imwrite

    extra = [(tag.code, tag.kind, 0 if tag.kind == _ASCII else tag.length, tag.value, True) for tag in geotags]
    buffer = io.BytesIO()
    imwrite(
        buffer,
        mask,
        photometric="palette",
        colormap=voc_colors().T.astype(np.uint16) * 257,
        tile=(_SIDE, _SIDE),
        compression="zlib",
        metadata=None,
        software=False,
        extratags=[*extra, (_NODATA_TAG, _ASCII, 0, str(IGNORE), True)],
    )
    return buffer.getvalue()
