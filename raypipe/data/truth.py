"""Reads and checks true masks."""

import hashlib
from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import decode_mask, read_shape, reduced_size, turn
from raypipe.schema import BACKGROUND, IGNORE


def read_truth(mask_uri: str, *, num_classes: int) -> tuple[NDArray[np.uint8], str]:
    """Returns the true mask (H, W) of class ids, and its digest.

    Raises:
        ValueError: a value is neither a class id nor 255.
    """
    truth = check_truth(storage.read_bytes(mask_uri), num_classes=num_classes)
    return truth, hashlib.sha256(truth.tobytes()).hexdigest()


def unnamed_classes(mask: NDArray[np.uint8], labels: Collection[str], classes: Sequence[str]) -> list[str]:
    """Returns the classes in a mask (H, W) of class ids that its image's labels don't name, in the order of their ids.

    Args:
        mask: of class ids, each of a class, 0 or 255.
        labels: of the image.
        classes: class names in class-id order, without background.
    """
    ids = (int(value) for value in np.unique(mask) if BACKGROUND < value < IGNORE)
    return [classes[class_id - 1] for class_id in ids if classes[class_id - 1] not in labels]


def check_truth(data: bytes, *, num_classes: int) -> NDArray[np.uint8]:
    """Returns the true mask (H, W) of a file's content.

    Raises:
        ValueError: as for `read_truth`.
    """
    truth = decode_mask(data)
    values = np.unique(truth)
    if unknown := [int(value) for value in values if value >= num_classes and value != 255]:
        raise ValueError(f"the true mask has values {unknown[:5]}, but class ids end at {num_classes - 1}")
    return truth


def as_shown(
    mask: NDArray[np.uint8],
    *,
    size: tuple[int, int],
    image: Callable[[], bytes],
    max_side: int | None = None,
    name: str = "the true mask",
) -> NDArray[np.uint8]:
    """Returns a mask (H, W) that lies on its image as the image is shown.

    Tools that don't know EXIF draw masks on the picture as it is in the file: a mask of that shape is turned as the
    photograph is. Where both shapes fit, since a turn by 180 degrees or of a square keeps the shape, the mask is taken
    to be as the image is shown.

    Args:
        mask: the values.
        size: (height, width) of the image as it is shown, reduced to `max_side`.
        image: fetches the image file; called only for a mask of the shape that a turn would explain.
        max_side: longer images were reduced to this long side, in pixels; None reduces none.
        name: of the mask, for the error.

    Raises:
        ValueError: the mask has another size, whichever way it is turned.
    """
    height, width = mask.shape
    fits = reduced_size(width, height, max_side) == size[::-1]
    fits_turned = height != width and reduced_size(height, width, max_side) == size[::-1]
    if fits and not fits_turned:
        return mask
    hint = ""
    if fits_turned:
        known = read_shape(image())
        turned = turn(mask, known.orientation)
        if turned.shape != mask.shape and (not fits or turned.shape == (known.height, known.width)):
            return turned
        if fits:
            return mask
        hint = ". The image's EXIF block doesn't say that it is turned: turn the mask"
    reduced = "" if max_side is None else ", reduced to max_side,"
    raise ValueError(f"{name} is {mask.shape} (height, width), the image{reduced} {size}{hint}")
