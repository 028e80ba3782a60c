"""Decodes COCO's regions, run lengths and polygons, to the same pixels as pycocotools.

https://cocodataset.org/#format-data. Run lengths go down the columns and begin with a run outside the region. The
compressed form writes each number in characters that count from "0", with 5 bits in each, the lowest bits first; bit 6
says that another character follows, and the highest of the last 5 bits is the sign. From the fourth number on, each is
the difference from the number two places before.

A file may come from anybody, so run lengths are checked here before memory is taken, and pycocotools' C code never sees
them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LONGEST = 7
"""Most characters of one number: 35 bits count more pixels than any image has."""


def decode_segmentation(segmentation: Any, *, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the region (height, width) of an annotation's `segmentation`.

    Raises:
        ValueError: the segmentation is damaged, or of another size.
    """
    if isinstance(segmentation, dict):
        if segmentation.get("size") != [height, width]:
            raise ValueError(
                f"expected run lengths of the image's size {[height, width]}, got {segmentation.get('size')}"
            )
        return decode_run_lengths(segmentation.get("counts"), height=height, width=width)
    if isinstance(segmentation, list) and segmentation:
        return _fill(segmentation, height=height, width=width)
    raise ValueError(f"expected run lengths or polygons as segmentation, got {str(segmentation)[:80]!r}")


def decode_run_lengths(counts: Any, *, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the region (height, width) of run lengths, compressed or as a list.

    Raises:
        ValueError: the run lengths are damaged, or of another number of pixels.
    """
    lengths = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(type(length) is int and length >= 0 for length in lengths):
        raise ValueError("expected run lengths as a text or a list of counts, got neither")
    if sum(lengths) != height * width:
        raise ValueError(f"expected run lengths of the image's {height * width} pixels, got {sum(lengths)}")
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
    """Returns the union (height, width) of polygons `[x, y, x, y, …]`; corners outside the image move to its border."""
    try:
        from pycocotools import mask as coco_mask  # an extra, which run lengths don't need
    except ImportError as error:
        raise ImportError("COCO's polygons need pycocotools: pip install -e '.[export]' in raypipe's clone") from error
    region = np.zeros((height, width), bool)
    whole = [polygon for polygon in polygons if isinstance(polygon, list) and len(polygon) >= 6]
    for polygon in whole or polygons:  # programs leave points and lines behind, which cover nothing
        numbers = isinstance(polygon, list) and all(type(value) in (int, float) for value in polygon)
        if not numbers or len(polygon) < 6 or len(polygon) % 2 or not np.isfinite(polygon).all():
            raise ValueError(f"expected a polygon [x, y, x, y, …] of at least three corners, got {str(polygon)[:80]}")
        # The C code takes memory in proportion to the outline's length.
        corners = np.clip(np.reshape(polygon, (-1, 2)).astype(float), 0, (width, height))
        (encoded,) = coco_mask.frPyObjects([corners.ravel().tolist()], height, width)
        region |= decode_run_lengths(encoded["counts"].decode(), height=height, width=width)
    return region
