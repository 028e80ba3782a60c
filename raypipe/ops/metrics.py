"""Confusion matrix and intersection over union.

Conventions. Rows are the truth, columns the prediction; class ids 0..num_classes - 1 with 0 the background. Pixels
whose truth is 255 don't count. Matrices of parts add up to the matrix of the whole.
"""

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from numpy.typing import NDArray

from raypipe.schema import IGNORE


def confusion_matrix(
    truth: UInt8[np.ndarray, "..."], prediction: UInt8[np.ndarray, "..."], *, num_classes: int
) -> Int64[np.ndarray, "num_classes num_classes"]:
    """Counts the pixels of each class (row) that were predicted as each class (column).

    Args:
        truth: class ids, 255 where unknown; any shape.
        prediction: class ids, the shape of `truth`; 255 is not a prediction.
        num_classes: number of classes including the background.

    Returns:
        Counts.

    Raises:
        ValueError: the shapes differ, or an id is out of range.
    """
    if truth.shape != prediction.shape:
        raise ValueError(f"truth has shape {truth.shape}, prediction {prediction.shape}; resize the prediction")
    known = truth != IGNORE
    check_ids(truth[known], prediction, num_classes=num_classes)
    pairs = truth[known].astype(np.int64) * num_classes + prediction[known]
    counts = np.bincount(pairs, minlength=num_classes**2)
    return counts.astype(np.int64).reshape(num_classes, num_classes)


def check_ids(truth: UInt8[np.ndarray, "..."], prediction: UInt8[np.ndarray, "..."], *, num_classes: int) -> None:
    """Raises ValueError for a class id that isn't below `num_classes`."""
    for name, ids in (("truth", truth), ("prediction", prediction)):
        if ids.size and ids.max() >= num_classes:
            raise ValueError(
                f"{name} holds class id {ids.max()}; with num_classes={num_classes} ids go from 0 to {num_classes - 1}"
            )


def iou(confusion: Int64[np.ndarray, "num_classes num_classes"]) -> Float64[np.ndarray, " num_classes"]:
    """Computes the intersection over union of each class, TP / (TP + FP + FN).

    Args:
        confusion: result of `confusion_matrix`, or a sum of such results.

    Returns:
        Values in [0, 1]; nan for a class in neither truth nor prediction.
    """
    hits = np.diagonal(confusion).astype(np.float64)
    union = confusion.sum(axis=0) + confusion.sum(axis=1) - hits
    result = np.full(len(hits), np.nan)
    np.divide(hits, union, out=result, where=union > 0)
    return result


def mean_iou(confusion: Int64[np.ndarray, "num_classes num_classes"]) -> float:
    """Computes the mean of `iou` over the classes that occur in truth or prediction; nan if none does.

    Args:
        confusion: as in `iou`.

    Returns:
        A value in [0, 1], or nan.
    """
    values = iou(confusion)
    occurs = ~np.isnan(values)
    return float(values[occurs].mean()) if occurs.any() else float("nan")


def mean_iou_of_counts(
    hits: Float64[np.ndarray, "*batch C"], predicted: Float64[np.ndarray, "*batch C"], truth: Float64[np.ndarray, " C"]
) -> Float64[np.ndarray, "*batch"]:
    """Computes `mean_iou` from the numbers of pixels of each class, without a confusion matrix.

    Args:
        hits: pixels of each class that were predicted correctly.
        predicted: pixels that were predicted as each class, among those whose truth is known.
        truth: pixels of each class.

    Returns:
        One value as of `mean_iou` for each prediction.
    """
    union = predicted + truth - hits
    occurs = union > 0
    total = np.divide(hits, union, out=np.zeros_like(hits), where=occurs).sum(axis=-1)
    count = occurs.sum(axis=-1)
    means: NDArray[np.float64] = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return means
