"""Expected gain: an estimate, without truth, of what the correction of one mask adds to the mean IoU of all.

    gain_i = (1 - predicted IoU_i) * sum_c s_ic
    s_ic   = a_ic / A_c      where the mask holds class c
           = 1 / n_c         where the image is labelled c and its mask lacks it

Here a_ic is the share of image i that its mask assigns to class c, A_c the sum of these shares over all masks, and n_c
the number of masks that hold c (at least 1). s_ic is the part of the class that lies in this image; it grows with the
area and with the rarity of the class. The mean IoU counts every class alike, whatever its area, and (1 - IoU) * s_ic is
to first order what the class's IoU gains when its part in image i becomes right. A missing class is assumed to be as
large as in the mean mask that holds it: s = (A_c / n_c) / A_c. The background has no term: wherever it is wrong, a
class is wrong too, and the same pixels are only a small part of the background's large area.

Conventions. Classes without background: channel c stands for class id c + 1.
"""

import numpy as np
from jaxtyping import Bool, Float64, Int64
from numpy.typing import NDArray


def expected_gain(
    areas: Float64[np.ndarray, "num_images C"],
    labelled: Bool[np.ndarray, "num_images C"],
    predicted_iou: Float64[np.ndarray, " num_images"],
    *,
    totals: Float64[np.ndarray, " C"],
    counts: Int64[np.ndarray, " C"],
) -> Float64[np.ndarray, "num_images C"]:
    """Returns each class's part of each image's gain; their sum is the gain.

    Args:
        areas: a, share of the image of each class in its mask, 0..1; 0 where the mask lacks it.
        labelled: True if the image is labelled with the class.
        predicted_iou: predicted IoU of each mask, 0..1.
        totals: A, over all masks including these.
        counts: n, over all masks including these.

    Returns:
        Values in [0, 1]; 1 is the whole class.
    """
    held = np.divide(areas, totals, out=np.zeros_like(areas), where=totals > 0)
    missing = labelled & (areas == 0)
    at_stake = np.where(missing, 1 / np.maximum(counts, 1), held)
    parts: NDArray[np.float64] = (1 - predicted_iou)[:, None] * at_stake
    return parts
