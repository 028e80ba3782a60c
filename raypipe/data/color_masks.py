"""Masks whose classes are colours, as a labelmap.txt names them (PASCAL VOC, CVAT)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from raypipe.data.images import decode_image, decode_mask
from raypipe.data.opening import ImageError
from raypipe.schema import BACKGROUND, IGNORE

BORDER = (224, 224, 192)
"""The colour in which VOC draws what is ignored."""


def decode_color_mask(data: bytes, colors: Mapping[tuple[int, int, int], int]) -> NDArray[np.uint8] | None:
    """Decodes a mask by its colours; those of a palette count, not its indexes.

    Args:
        data: the file's bytes.
        colors: id of each colour. Black is background, and VOC's border is 255 (ignored), unless they are classes.

    Returns:
        The ids (H, W), or None where the mask is grey, or has a palette of other colours: then its values are ids.

    Raises:
        ImageError: the file is damaged, or has a colour that no class has.
    """
    pixels = decode_image(data, max_side=None).pixels.astype(np.uint32)
    try:
        values = decode_mask(data)
    except ImageError:
        values = None  # colours without a palette
    if values is not None and (pixels == values[..., np.newaxis]).all():
        return None
    codes = pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2]
    ids = {_code(BORDER): IGNORE, 0: BACKGROUND} | {_code(color): class_id for color, class_id in colors.items()}
    present, inverse = np.unique(codes, return_inverse=True)
    if unknown := [int(code) for code in present if int(code) not in ids]:
        if values is not None:
            return None
        shown = ", ".join(f"{code >> 16},{code >> 8 & 255},{code & 255}" for code in unknown[:3])
        raise ImageError(f"the mask has colours that no class has: {shown}")
    lookup = np.array([ids[int(code)] for code in present], np.uint8)
    return lookup[inverse].reshape(codes.shape)


def _code(color: tuple[int, int, int]) -> int:
    red, green, blue = color
    return red << 16 | green << 8 | blue
