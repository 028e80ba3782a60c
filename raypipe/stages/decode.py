"""Decodes images for the stages behind it in the same process."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.data.images import decode_image
from raypipe.stages.base import Row, Stage


@dataclass(kw_only=True)
class DecodeImages(Stage):
    """Pixels (height, width, 3) of an image at its working size, and its sizes.

    The pixels are no column: the stages behind it find them by `pixels_of`, and other processes decode once more.
    """

    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image",)
    writes = pa.schema({name: pa.int32() for name in ("height", "width", "original_height", "original_width")})
    leaves = ("pixels",)
    ahead = True
    kind = None  # joins the stage that needs the pixels

    def process(self, row: Row) -> Row:
        """Decodes one image.

        Raises:
            ImageError: if it can't be decoded.
        """
        image = decode_image(row["image"], max_side=self.max_side)
        height, width = image.pixels.shape[:2]
        return {
            "pixels": image.pixels,
            "height": height,
            "width": width,
            "original_height": image.original_height,
            "original_width": image.original_width,
        }


def pixels_of(row: Row, *, max_side: int) -> NDArray[np.uint8]:
    """Pixels (height, width, 3) of a row: those that `DecodeImages` has left in this process, or decoded here.

    Raises:
        ImageError: if the image can't be decoded.
    """
    pixels: NDArray[np.uint8] | None = row.get("pixels")
    return decode_image(row["image"], max_side=max_side).pixels if pixels is None else pixels
