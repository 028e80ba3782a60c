"""Decodes saliency maps: 8-bit grey images in which 0 is background and 255 salient."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import decode_image, read_shape, turn
from raypipe.data.opening import ImageError

_TOLERANCE = 0.02
"""Largest relative difference of the aspect ratio from the image's, beyond a pixel of rounding."""


def decode_saliency(
    data: bytes, *, size: tuple[int, int], image: Callable[[], bytes], max_side: int | None = None
) -> NDArray[np.uint8]:
    """Decodes a saliency map, which may have any size but needs the image's aspect ratio.

    A map of the picture as it is in the file is turned as EXIF says; where both fit, it is taken as it is.

    Args:
        data: the file's content; colours become grey, and 65535 of 16 bits is salient, however dark the map is.
        size: (height, width) of the image, as it is shown, at any scale.
        image: fetches the image file; called only for a map of the shape that a turn would explain.
        max_side: largest length of the longer side in pixels; None keeps every size.

    Returns:
        (H, W) in 0..255, not resized to `size`.

    Raises:
        ImageError: the bytes are no image, or the aspect ratio isn't the image's.
    """
    decoded = decode_image(data, max_side=max_side, guess_depth=False)
    saliency = np.asarray(Image.fromarray(decoded.pixels).convert("L"))
    if _fits(saliency.shape, size):
        return saliency
    if _fits(saliency.shape, size[::-1]):
        turned = turn(saliency, read_shape(image()).orientation)
        if _fits(turned.shape, size):
            return turned
    height, width = saliency.shape
    raise ImageError(
        f"a saliency map of {height} x {width} (height x width) belongs to no image of {size[0]} x {size[1]}: "
        "the shape must be the image's, before or after EXIF rotation"
    )


def _fits(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    height, width = shape
    expected = width * size[0] / size[1]
    return abs(height - expected) <= 1 + _TOLERANCE * expected
