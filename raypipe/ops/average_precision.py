r"""Average precision: how well a classifier's scores put the images that show a class before those that don't.

    AP = sum_t (R_t - R_{t-1}) P_t

over the scores t from the highest to the lowest, with the precision P_t and the recall R_t of the images whose score is
at least t. Images of equal score come together: no order among them counts. There is no interpolation.

What scores give that know nothing is more than the share of positive images, by much where there are few images: with P
of N images positive, the mean over all orders is

    E[AP] = (H_N + (P - 1) (N - H_N) / (N - 1)) / N,    H_N = 1 + 1/2 + ... + 1/N.

For where the image at rank i is positive, each of the i - 1 images before it is so with probability
(P - 1) / (N - 1), and the precision is 1 / i plus their share of i; a positive image has each rank equally often, and
H_N / N is the mean of 1 / i.

Source: Everingham et al., "The PASCAL Visual Object Classes (VOC) Challenge", IJCV 2010, §4.2, of which the 2010 devkit
drops the interpolation. The expectation is worked out above.
"""

import numpy as np
from jaxtyping import Bool, Float


def average_precision(scores: Float[np.ndarray, " images"], positive: Bool[np.ndarray, " images"]) -> float:
    """Returns the average precision of one class.

    Args:
        scores: higher is surer.
        positive: the images that show the class.

    Returns:
        A value in (0, 1]; nan where no image is positive, or none is negative: then there is nothing to tell apart.

    Raises:
        ValueError: a score is no number.
    """
    if np.isnan(scores).any():
        raise ValueError(f"{np.isnan(scores).sum()} of {len(scores)} scores are nan: look at the classifier's loss")
    if positive.all() or not positive.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    last_of_equals = np.append(np.diff(scores[order]) != 0, True)
    found = positive[order].cumsum()[last_of_equals]
    shown = np.flatnonzero(last_of_equals) + 1
    return float((np.diff(found, prepend=0) * found / shown).sum() / positive.sum())


def chance_precision(num_positive: int, num_images: int) -> float:
    """Returns the mean average precision over all orders of the images, E[AP].

    Args:
        num_positive: images that show the class, P.
        num_images: all images, N.

    Returns:
        A value in (0, 1); nan as of `average_precision`.

    Raises:
        ValueError: there are more positive images than images, or less than none.
    """
    if not 0 <= num_positive <= num_images:
        raise ValueError(f"expected 0 to {num_images} positive images, got {num_positive}")
    if num_positive in (0, num_images):
        return float("nan")
    harmonic = float((1 / np.arange(1, num_images + 1)).sum())
    return (harmonic + (num_positive - 1) * (num_images - harmonic) / (num_images - 1)) / num_images


def skill(precision: float, chance: float) -> float:
    """Returns the share of the way from chance to a perfect order, (AP - E[AP]) / (1 - E[AP]); 0 for less than chance.

    Args:
        precision: average precision AP of a class.
        chance: E[AP] of the same images, below 1.

    Returns:
        A value in [0, 1].
    """
    return max(0.0, (precision - chance) / (1 - chance))
