"""Scores for images by what the others teach: ridge regression on features that stay as they are, fold by fold.

    score(x) = k(x, X) (K + lam I)^-1 (Y - mean Y),    k(x, x') = z(x) · z(x') / D

X, Y: features and labels of all other folds; z: features standardised by X's mean and deviation; K = k(X, X). The mean
of Y is not added: a fold without a class has more of it in the others, and scores would fall where it is missing.

Source: Hoerl and Kennard, "Ridge Regression", Technometrics 1970; in the dual form of Saunders et al., ICML 1998.
"""

import numpy as np
from jaxtyping import Bool, Float, Int64
from scipy.linalg import solve

LAM = 0.3
"""Strength of the ridge, relative to the mean diagonal of K. Measured on VOC (benchmarks/small_sets.md)."""


def cross_validated_scores(
    features: Float[np.ndarray, "images D"],
    labels: Bool[np.ndarray, "images classes"],
    folds: Int64[np.ndarray, " images"],
    *,
    lam: float = LAM,
) -> Float[np.ndarray, "images classes"]:
    """Computes each image's scores of all classes by a ridge regression that hasn't seen the image's fold.

    Args:
        features: of each image; they must not have learned from these labels.
        labels: which classes each image shows.
        folds: number of each image's fold.
        lam: strength of the ridge.

    Returns:
        Scores, comparable within a class. All are 0 where there is only one fold.

    Raises:
        ValueError: a feature isn't finite.
    """
    if not np.isfinite(features).all():
        raise ValueError("some features are infinite or nan: look at the network's weights and preprocessing")
    scores = np.zeros(labels.shape)
    for fold in np.unique(folds):
        held = folds == fold
        if held.all():
            continue
        mean, deviation = features[~held].mean(axis=0), features[~held].std(axis=0)
        # A feature that never changes says nothing; by its rounding errors it would.
        standard = (features - mean) / np.where(deviation > 1e-6 * np.abs(mean) + 1e-12, deviation, np.inf)
        known, asked = standard[~held], standard[held]
        targets = labels[~held] - labels[~held].mean(axis=0)
        kernel = known @ known.T / features.shape[1] + lam * np.eye(len(known))
        scores[held] = asked @ known.T / features.shape[1] @ solve(kernel, targets, assume_a="pos")
    return scores
