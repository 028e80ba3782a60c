"""COCO's regions: run lengths and polygons to pixels, as pycocotools has them.

https://cocodataset.org/#format-data. Run lengths go down the columns, beginning with a run outside. Their compressed
form writes each number in characters from "0" on, 5 bits a character, lowest first; bit 6 says that another follows,
the highest of the last 5 bits is the sign; from the fourth on, a number is the difference to the one two before.

Files may be anybody's: run lengths are checked here, before memory is taken, and never reach the C code of pycocotools.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST = 7
"""Characters of a number: 35 bits, more than any image has pixels."""


def decode_segmentation(segmentation: Any, *, height: int, width: int) -> NDArray[np.bool_]:
    """The region (height, width) of an annotation's `segmentation`.

    Raises:
        ValueError: if it is damaged, or of another size.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(f"the run lengths' size is {segmentation.get('size')}, the image's {[height, width]}")
        return decode_run_lengths(segmentation.get("counts"), height=height, width=width)
    if isinstance(segmentation, list) and segmentation:
        return _fill(segmentation, height=height, width=width)
    raise ValueError(f"the segmentation is {str(segmentation)[:80]!r}, needed are run lengths or polygons")


def decode_run_lengths(counts: Any, *, height: int, width: int) -> NDArray[np.bool_]:
    """The region (height, width) of run lengths, compressed or as a list.

    Raises:
        ValueError: if they are damaged, or of another number of pixels.
    """
    lengths = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("the run lengths are neither a text nor a list of counts")
    if sum(lengths) != height * width:
        raise ValueError(f"the run lengths are of {sum(lengths)} pixels, the image has {height * width}")
    values = np.arange(len(lengths)) % 2 == 1
    return np.repeat(values, lengths).reshape(width, height).T


def _decompress(text: str) -> list[int]:
    lengths: list[int] = []
    number, size = 0, 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or size == _LONGEST:
            raise ValueError(f"the run lengths are damaged at their number {len(lengths)}")
        number |= (bits & 31) << (5 * size)
        size += 1
        if not bits & 32:
            if bits & 16:
                number -= 1 << (5 * size)
            lengths.append(number + (lengths[-2] if len(lengths) > 2 else 0))
            number, size = 0, 0
    if size:
        raise ValueError("the run lengths end too early")
    return lengths


def _fill(polygons: Sequence[Any], *, height: int, width: int) -> NDArray[np.bool_]:
    """What lies in any of the polygons `[x, y, x, y, …]`; corners outside the image are moved to its border."""
    try:
        from pycocotools import mask as coco_mask  # an extra, which run lengths do without
    except ImportError as error:
        raise ValueError(
            "COCO's polygons need pycocotools: run pip install -e '.[export]' in raypipe's clone"
        ) from error
    region = np.zeros((height, width), bool)
    for polygon in polygons:
        numbers = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"the polygon {str(polygon)[:80]} isn't [x, y, x, y, …] of three corners or more")
        # The C code takes memory by the outline's length.
        corners = np.clip(np.reshape(polygon, (-1, 2)).astype(float), 0, (width, height))
        (encoded,) = coco_mask.frPyObjects([corners.ravel().tolist()], height, width)
        region |= decode_run_lengths(encoded["counts"].decode(), height=height, width=width)
    return region
