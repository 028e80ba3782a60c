"""Maps confidence to the probability that a label is right, by one monotone map, fitted on a few true masks.

Confidence is 8-bit, so counts for each level 0..255 answer every question about it. Counts of images add up.

Conventions. Counts are (3, 256, C): for each level of confidence and each class, the pixels that are right (`hits`),
that are predicted as the class, and that truly are of it. These are the diagonal and the margins of a confusion matrix,
which suffice for IoU. Pixels whose truth or prediction is 255 don't count: without a label they are neither right nor
wrong.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from scipy.optimize import isotonic_regression

from raypipe.ops.metrics import check_ids
from raypipe.schema import IGNORE

NUM_LEVELS = 256


def confidence_counts(
    truth: UInt8[np.ndarray, "..."],
    prediction: UInt8[np.ndarray, "..."],
    confidence: UInt8[np.ndarray, "..."],
    *,
    num_classes: int,
) -> Int64[np.ndarray, "3 256 num_classes"]:
    """Counts the hits, predicted pixels and true pixels of each confidence level and class.

    Args:
        truth: class ids, 255 where unknown; any shape.
        prediction: class ids, 255 where there is none.
        confidence: 0..255, larger is surer.
        num_classes: classes with the background.

    Returns:
        Counts of pixels.

    Raises:
        ValueError: the shapes differ, or an id is out of range.
    """
    if not truth.shape == prediction.shape == confidence.shape:
        raise ValueError(
            f"the true mask is {truth.shape} (height, width), the mask {prediction.shape}, its confidence "
            f"{confidence.shape}: all need the image's size"
        )
    known = (truth != IGNORE) & (prediction != IGNORE)
    truth, prediction, level = truth[known], prediction[known], confidence[known].astype(np.int64) * num_classes
    check_ids(truth, prediction, num_classes=num_classes)
    right = truth == prediction
    cells = (level[right] + truth[right], level + prediction, level + truth)
    counts = [np.bincount(cell, minlength=NUM_LEVELS * num_classes) for cell in cells]
    return np.stack(counts).astype(np.int64).reshape(3, NUM_LEVELS, num_classes)


def fit_isotonic(
    total: Int64[np.ndarray, " levels"], correct: Int64[np.ndarray, " levels"]
) -> Float64[np.ndarray, " levels"]:
    """Fits the map that never falls and is nearest to the shares of right pixels: isotonic regression, smoothed.

        min over p_0 <= p_1 <= ... of sum_i total_i (p_i - correct_i / total_i)^2

    The minimum is a staircase, which would make different levels equal. So each step is put at the mean level of its
    pixels, and the map runs in straight lines from step to step; before the first and after the last it is constant.
    Levels without pixels lie on these lines too.

    Args:
        total: pixels of each level.
        correct: those of them that are right.

    Returns:
        Probability of being right in each level, in [0, 1], ascending.

    Raises:
        ValueError: the counts can't be, or there are no pixels.

    Source: Zadrozny and Elkan, "Transforming classifier scores into accurate multiclass probability estimates",
    KDD 2002.
    """
    _check_pixels(total, correct)
    seen = np.flatnonzero(total)
    fitted = isotonic_regression(correct[seen] / total[seen], weights=total[seen].astype(np.float64))
    starts = fitted.blocks[:-1]
    mean_levels = np.add.reduceat(total[seen] * seen, starts) / np.add.reduceat(total[seen], starts)
    probability: Float64[np.ndarray, " levels"] = np.interp(np.arange(len(total)), mean_levels, fitted.x[starts])
    return probability.clip(0, 1)


def expected_calibration_error(
    total: Int64[np.ndarray, " levels"],
    correct: Int64[np.ndarray, " levels"],
    probability: Float64[np.ndarray, " levels"],
    *,
    num_bins: int = 15,
) -> float:
    """Measures how far the given probabilities are from the shares of right pixels.

        ECE = sum_m |B_m| / n * |acc(B_m) - conf(B_m)|

    Bin B_m holds the pixels with a probability in ((m - 1) / num_bins, m / num_bins]; acc is the share of them that is
    right, conf the mean of their probabilities, n the number of all pixels.

    Args:
        total: pixels of each level.
        correct: those of them that are right.
        probability: probability of each level, in [0, 1].
        num_bins: bins of equal width.

    Returns:
        A value in [0, 1].

    Raises:
        ValueError: the counts can't be, there are no pixels, or a probability is outside [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, https://arxiv.org/abs/1706.04599, eq. 3.
    """
    _check_pixels(total, correct)
    if not ((probability >= 0) & (probability <= 1)).all():
        raise ValueError(f"expected probabilities in [0, 1], got {probability.min():g} to {probability.max():g}")
    bins = np.maximum(np.ceil(probability * num_bins).astype(np.int64) - 1, 0)
    gap = np.bincount(bins, weights=correct - total * probability, minlength=num_bins)
    return float(np.abs(gap).sum() / total.sum())


def mean_iou_at_coverage(
    counts: Int64[np.ndarray, "3 levels classes"], coverages: Sequence[float]
) -> Float64[np.ndarray, " coverages"]:
    """Computes the mean IoU of the surest pixels.

    The pixels of one level are alike. If the cut lies within a level, the same share of all its counts is taken, which
    is what a random choice of its pixels gives on average.

    Args:
        counts: result of `confidence_counts`, or a sum of such results.
        coverages: shares of the pixels that are kept, in (0, 1].

    Returns:
        For each coverage, the mean over the classes that occur in truth or prediction of the pixels that are kept; in
        [0, 1], or nan without pixels.

    Raises:
        ValueError: a coverage is out of range.
    """
    if wrong := [coverage for coverage in coverages if not 0 < coverage <= 1]:
        raise ValueError(f"expected coverages in (0, 1], got {wrong}")
    per_level = counts[2].sum(axis=1)
    surer = per_level[::-1].cumsum()[::-1] - per_level  # pixels of higher levels
    result = np.full(len(coverages), np.nan)
    for index, coverage in enumerate(coverages):
        share = ((coverage * per_level.sum() - surer) / np.maximum(per_level, 1)).clip(0, 1)
        hits, predicted, true = np.einsum("l,klc->kc", share, counts)
        union = predicted + true - hits
        if union.any():
            result[index] = (hits[union > 0] / union[union > 0]).mean()
    return result


def _check_pixels(total: Int64[np.ndarray, " levels"], correct: Int64[np.ndarray, " levels"]) -> None:
    if (correct < 0).any() or (correct > total).any():
        level = np.flatnonzero((correct < 0) | (correct > total))[0]
        raise ValueError(f"expected 0 to {total[level]} right pixels in level {level}, got {correct[level]}")
    if not total.any():
        raise ValueError("there are no pixels with known truth: at least one true mask is needed")
