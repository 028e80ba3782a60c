"""True masks as pages show them."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.truth import as_shown, read_truth
from raypipe.faults import ROW_ERRORS

logger = logging.getLogger(__name__)


def usable_truth(row: Mapping[str, Any], classes: Sequence[str], *, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The true mask; None for one that isn't there or can't be used, which the scores leave out, too.

    Args:
        row: the manifest's.
        classes: class names, without background.
        size: (height, width) of the image as it is shown.
    """
    if not row["mask_uri"]:
        return None
    try:
        truth, _ = read_truth(row["mask_uri"], num_classes=len(classes) + 1)
        return as_shown(truth, size=size, image=lambda: storage.read_bytes(row["image_uri"]))
    except ROW_ERRORS as error:
        logger.warning("no true mask on the page: %s", error)
        return None
