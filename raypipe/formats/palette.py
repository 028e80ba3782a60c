"""The colours that tools show class ids in: PASCAL VOC's, which every one of them knows."""

import numpy as np
from numpy.typing import NDArray


def voc_colors() -> NDArray[np.uint8]:
    """Returns the colour of each class id, (256, 3) RGB.

    The bits of an id, three at a time, are the high bits of red, green and blue.
    """
    ids = np.arange(256)
    shifts = np.arange(8)
    channels = [(((ids[:, None] >> (3 * shifts + channel)) & 1) << (7 - shifts)).sum(axis=1) for channel in range(3)]
    return np.stack(channels, axis=1).astype(np.uint8)
