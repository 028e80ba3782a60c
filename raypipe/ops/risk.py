"""Risk over coverage: how wrong the remaining masks are when the least sure ones are put aside.

Conventions. Coverage is the share of images that are kept, in (0, 1], surest first; risk is the mean loss on them, such
as 1 - IoU.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64


def risk_at_coverage(
    certainty: Float64[np.ndarray, " images"], loss: Float64[np.ndarray, " images"], coverages: Sequence[float]
) -> Float64[np.ndarray, " coverages"]:
    """Computes the mean loss of the surest images.

    Each of several images of equal certainty counts with the mean loss of all of them, which is what a random order
    gives on average. At least one image is kept.

    Args:
        certainty: certainty of each image; larger is surer.
        loss: loss of each image, without nan.
        coverages: shares of the images that are kept.

    Returns:
        The risk at each coverage.

    Raises:
        ValueError: there is no image, the lengths differ, or a coverage is out of range.

    Source: El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010.
    """
    if not len(certainty) or certainty.shape != loss.shape:
        raise ValueError(f"expected one certainty and one loss for each image, got {len(certainty)} and {len(loss)}")
    if wrong := [coverage for coverage in coverages if not 0 < coverage <= 1]:
        raise ValueError(f"expected coverages in (0, 1], got {wrong}")
    _, group = np.unique(-certainty, return_inverse=True)
    of_group = np.bincount(group, weights=loss) / np.bincount(group)
    risk = of_group[np.sort(group)].cumsum() / np.arange(1, len(loss) + 1)
    kept = np.maximum(1, np.round(np.array(coverages) * len(loss)).astype(np.int64))
    result: Float64[np.ndarray, " coverages"] = risk[kept - 1]
    return result
