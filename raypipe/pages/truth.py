"""True masks as pages show them."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from raypipe.data.truth import read_truth
from raypipe.faults import ROW_ERRORS

logger = logging.getLogger(__name__)


def usable_truth(mask_uri: str | None, classes: Sequence[str]) -> NDArray[np.uint8] | None:
    """The true mask; None for one that isn't there or can't be used, which the scores leave out, too."""
    if not mask_uri:
        return None
    try:
        return read_truth(mask_uri, num_classes=len(classes) + 1)[0]
    except ROW_ERRORS as error:
        logger.warning("no true mask on the page: %s", error)
        return None
