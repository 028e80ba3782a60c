"""Draws the regions of a COCO file as masks.

A mask holds the objects' regions, smaller ones on top of larger ones; a crowd is 255 (ignored) where no object lies on
it, and so is the box of an object without a region.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import decode_image
from raypipe.data.merge import write_mask
from raypipe.data.opening import check_size
from raypipe.formats.coco.content import Coco
from raypipe.formats.coco.regions import decode_segmentation
from raypipe.formats.draft import Drawn
from raypipe.schema import BACKGROUND, IGNORE

WRITERS = 8
"""Number of masks that are drawn and written at the same time."""


def draw_masks(coco: Coco, folder: str, *, images: str, class_ids: Mapping[int, int], ids: Mapping[int, str]) -> Drawn:
    """Draws and writes masks.

    Args:
        coco: the file.
        folder: absolute URI of the folder to write into.
        images: absolute URI of the folder that file names count from: images without a size are looked at.
        class_ids: class id by category id.
        ids: the `image_id` of each image whose mask is wanted, by its place in `coco.images`: its mask is named so.

    Returns:
        The masks' URIs in the order of `ids`; None for images whose size isn't known.
    """
    unsized: list[str] = []
    damaged: list[str] = []

    def draw(index: int) -> str | None:
        image, own = coco.images[index], coco.annotations[index]
        size = None if own is None else _size(image, images)
        if own is None or size is None:
            unsized.append(image["file_name"])
            return None
        mask, bad = draw_regions(own, class_ids, height=size[0], width=size[1])
        damaged.extend(f"{image['file_name']}: {reason}" for reason in bad)
        return write_mask(mask, folder, ids[index])

    with ThreadPoolExecutor(WRITERS) as threads:
        found = list(threads.map(draw, ids))
    skipped = {
        "masks of images whose height and width aren't known": sorted(unsized),
        "regions that can't be drawn, whose boxes are ignored (255)": sorted(damaged),
    }
    return Drawn(found, skipped)


def draw_regions(
    annotations: Sequence[Mapping[str, Any]], class_ids: Mapping[int, int], *, height: int, width: int
) -> tuple[NDArray[np.uint8], list[str]]:
    """Returns the mask (height, width) of one image's annotations, and why regions couldn't be drawn.

    Args:
        annotations: the image's annotations as of `Coco`.
        class_ids: class id by category id.
        height: height of the image.
        width: width of the image.
    """
    mask = np.full((height, width), BACKGROUND, np.uint8)
    objects = []
    damaged = []
    for annotation in annotations:
        try:
            region = decode_segmentation(annotation.get("segmentation"), height=height, width=width)
        except ValueError as error:
            damaged.append(f"annotation {annotation.get('id')}: {error}")
            mask[_box(annotation.get("bbox"))] = IGNORE
            continue
        if annotation["iscrowd"]:
            mask[region] = IGNORE
        else:
            objects.append((np.count_nonzero(region), class_ids[annotation["category_id"]], region))
    for _, class_id, region in sorted(objects, key=lambda item: -item[0]):
        mask[region] = class_id
    return mask, damaged


def _box(box: Any) -> tuple[slice, slice]:
    """The rows and columns of a box (x, y, width, height); none where there is no such box."""
    try:
        left, top, width, height = (float(value) for value in box)
        edges = [max(0, round(value)) for value in (top, top + height, left, left + width)]
    except (TypeError, ValueError, OverflowError):
        return slice(0, 0), slice(0, 0)
    return slice(edges[0], edges[1]), slice(edges[2], edges[3])


def _size(image: Mapping[str, Any], images: str) -> tuple[int, int] | None:
    """Height and width of an image, as the file says it, or else the image itself."""
    sides = [_whole(image.get(name)) for name in ("height", "width")]
    if sides[0] and sides[1]:
        try:
            check_size(sides[0], sides[1])
        except ValueError:
            return None
        return sides[0], sides[1]
    try:
        found = decode_image(storage.read_bytes(uri.absolute(image["file_name"], images)), max_side=1)
    except (ValueError, OSError):
        return None
    return found.original_height, found.original_width


def _whole(value: Any) -> int | None:
    """A number of pixels, also as 96.0 or "96", as other programs write them."""
    if isinstance(value, str) and value.strip().isdecimal():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        return None
    return int(value)
