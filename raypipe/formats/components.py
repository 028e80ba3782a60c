"""Splits a mask into regions: one for each class, or one for each connected component."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


@dataclass(frozen=True)
class Region:
    """Some pixels of one class, in the box around them."""

    class_id: int
    top: int
    left: int
    pixels: NDArray[np.bool_]
    """(height, width) of the box: True inside the region."""

    @property
    def area(self) -> int:
        """Number of pixels."""
        return int(np.count_nonzero(self.pixels))

    @property
    def box(self) -> tuple[slice, slice]:
        """Rows and columns of the box."""
        height, width = self.pixels.shape
        return slice(self.top, self.top + height), slice(self.left, self.left + width)

    def full(self, shape: tuple[int, ...]) -> NDArray[np.bool_]:
        """Returns the region in a picture of the given shape (H, W)."""
        picture = np.zeros(shape, bool)
        picture[self.box] = self.pixels
        return picture


def components(mask: NDArray[np.uint8], class_ids: Sequence[int], *, min_area: int = 1) -> Iterator[Region]:
    """Yields the connected components of each class; pixels that touch at a corner are connected.

    Args:
        mask: (H, W).
        class_ids: classes to look for, in this order.
        min_area: in pixels; smaller components are left out.
    """
    for class_id in class_ids:
        labels, _ = ndimage.label(mask == class_id, structure=np.ones((3, 3)))
        for label, box in enumerate(ndimage.find_objects(labels), start=1):
            region = Region(class_id, box[0].start, box[1].start, labels[box] == label)
            if region.area >= min_area:
                yield region


def class_regions(mask: NDArray[np.uint8], class_ids: Sequence[int]) -> Iterator[Region]:
    """Yields one region with all pixels of a class, for each class that is in the mask (H, W)."""
    for class_id in class_ids:
        present = mask == class_id
        if present.any():
            ((rows, columns),) = ndimage.find_objects(present.astype(np.int8))
            yield Region(class_id, rows.start, columns.start, present[rows, columns])
