import numpy as np
import pytest
from numpy.typing import NDArray

from raypipe.ops.cross_validation import cross_validated_scores

FOLDS = np.array([0, 0, 1])


def of(
    features: list[list[float]], labels: list[int], folds: NDArray[np.int64] = FOLDS, *, lam: float = 0.5
) -> list[float]:
    shown = np.array(labels, np.bool_)[:, None]
    return cross_validated_scores(np.array(features, np.float64), shown, folds, lam=lam)[:, 0].tolist()


def test_by_hand() -> None:
    """Fold 0 teaches -1 and 1, standardised, with targets -1/2 and 1/2: K = [[1, -1], [-1, 1]].

    (K + I/2)^-1 (-1/2, 1/2) = (-1/5, 1/5). The third image lies at 3: 3 (-1) (-1/5) + 3 (1) (1/5). Fold 1 is one image,
    which teaches nothing.
    """
    assert of([[-1], [1], [3]], [0, 1, 1]) == pytest.approx([0, 0, 6 / 5])


def test_an_image_has_no_say_in_its_own_score() -> None:
    rng = np.random.default_rng(0)
    features, folds = rng.normal(size=(40, 6)), np.arange(40) % 4
    labels = rng.random((40, 3)) < 0.4
    before = cross_validated_scores(features, labels, folds)
    labels[folds == 2] ^= True
    after = cross_validated_scores(features, labels, folds)
    np.testing.assert_array_equal(after[folds == 2], before[folds == 2])
    assert not np.array_equal(after[folds == 1], before[folds == 1])


def test_neither_scale_nor_shift_of_a_feature_matters() -> None:
    rng = np.random.default_rng(1)
    features, labels = rng.normal(size=(30, 4)), rng.random((30, 2)) < 0.5
    folds = np.arange(30) % 3
    changed = features * [1, 100, 1e-3, 7] + [5, -3, 0, 2]
    np.testing.assert_allclose(
        cross_validated_scores(changed, labels, folds), cross_validated_scores(features, labels, folds), atol=1e-9
    )


def test_a_feature_that_never_changes_says_nothing() -> None:
    assert of([[-1, 7], [1, 7], [3, 9]], [0, 1, 1], lam=0.25) == pytest.approx(of([[-1], [1], [3]], [0, 1, 1], lam=0.5))


def test_labels_that_follow_from_the_features_are_found() -> None:
    rng = np.random.default_rng(2)
    features = rng.normal(size=(200, 20))
    labels = features[:, :2] > 0
    scores = cross_validated_scores(features, labels, np.arange(200) % 5)
    assert ((scores > 0) == labels).mean() > 0.85


def test_one_fold_teaches_nothing() -> None:
    assert of([[-1], [1], [3]], [0, 1, 1], np.zeros(3, np.int64)) == [0, 0, 0]


def test_features_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="infinite or nan"):
        of([[1], [2], [float("nan")]], [0, 1, 1])
