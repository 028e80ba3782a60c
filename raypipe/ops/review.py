"""Expected gain: how much the correction of one mask probably adds to the mean IoU of all; needs no truth.

    gain_i = (1 - predicted IoU_i) * sum_c s_ic
    s_ic   = a_ic / A_c      where the mask holds class c
           = 1 / n_c         where the image is labelled c and its mask lacks it

with the share a_ic of image i that its mask gives to class c, the sum A_c of these shares over all masks and the number
n_c of masks that hold c (at least 1). s_ic is the part of the class that lies in this image: it grows with the area and
with the rarity of the class. The mean IoU counts every class alike, whatever its area, and (1 - IoU) * s_ic is to first
order what the class's IoU gains when its part in image i comes right. A class that is missing is taken to be as large
as in the mean mask that holds it: s = (A_c / n_c) / A_c. The background has no term: wherever it is wrong, a class is,
and of so large an area the same pixels are a small part.

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
    """Each class's part of each image's gain; their sum is the gain.

    Args:
        areas: a, share of the image of each class in its mask, 0..1; 0 where the mask lacks it.
        labelled: what the images are labelled with.
        predicted_iou: of the masks, 0..1.
        totals: A, over all masks, these among them.
        counts: n, over all masks.

    Returns:
        Values >= 0: of one image and class at most 1, which is the whole class.
    """
    held = np.divide(areas, totals, out=np.zeros_like(areas), where=totals > 0)
    missing = labelled & (areas == 0)
    at_stake = np.where(missing, 1 / np.maximum(counts, 1), held)
    parts: NDArray[np.float64] = (1 - predicted_iou)[:, None] * at_stake
    return parts
