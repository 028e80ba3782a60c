"""Masks as pages show them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.config import Images
from raypipe.data.images import decode_mask, reduced_size, resize_map


def shown_mask(row: Mapping[str, Any], images: Images, *, column: str = "mask") -> NDArray[np.uint8]:
    """Decodes a run's mask (H, W); that of an image that is worked on in tiles is reduced to `max_side`.

    Args:
        row: with the mask, and the `height` and `width` of its image.
        images: how images are read.
        column: of the mask.
    """
    size = (row["height"], row["width"])
    mask = decode_mask(row[column], size=size)
    if images.tile is None:
        return mask
    width, height = reduced_size(size[1], size[0], images.max_side)
    return resize_map(mask, (height, width))
