"""Decodes saliency maps: 8-bit grey images in which 0 is background and 255 salient."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import ImageError, decode_image

_TOLERANCE = 0.02
"""Largest relative difference of the aspect ratio from the image's, beyond a pixel of rounding."""


def decode_saliency(data: bytes, *, size: tuple[int, int], max_side: int | None = None) -> NDArray[np.uint8]:
    """Decodes a saliency map, which may have any size but needs the image's aspect ratio.

    Args:
        data: the file's content; colours become grey.
        size: (height, width) of the image at any scale.
        max_side: largest length of the longer side in pixels; None keeps every size.

    Returns:
        (H, W) in 0..255, not resized to `size`.

    Raises:
        ImageError: the bytes are no image, or the aspect ratio isn't the image's.
    """
    decoded = decode_image(data, max_side=max_side)
    height, width = decoded.pixels.shape[:2]
    expected = width * size[0] / size[1]
    if abs(height - expected) > 1 + _TOLERANCE * expected:
        raise ImageError(
            f"a saliency map of {height} x {width} (height x width) belongs to no image of {size[0]} x {size[1]}: "
            "the shape must be the image's as it is shown, after EXIF rotation"
        )
    return np.asarray(Image.fromarray(decoded.pixels).convert("L"))
