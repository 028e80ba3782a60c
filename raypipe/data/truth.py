"""Reads and checks true masks."""

import hashlib

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import decode_mask


def read_truth(mask_uri: str, *, num_classes: int) -> tuple[NDArray[np.uint8], str]:
    """Returns the true mask (H, W) of class ids, and its digest.

    Raises:
        ValueError: a value is neither a class id nor 255.
    """
    truth = check_truth(storage.read_bytes(mask_uri), num_classes=num_classes)
    return truth, hashlib.sha256(truth.tobytes()).hexdigest()


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
