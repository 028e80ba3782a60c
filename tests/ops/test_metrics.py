import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.metrics import confusion_matrix, iou, mean_iou, mean_iou_of_counts

TRUTH = np.array([[0, 0, 1], [2, 255, 1]], np.uint8)
PREDICTION = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)


def test_convention_rows_are_the_truth() -> None:
    assert confusion_matrix(TRUTH, PREDICTION, num_classes=4).tolist() == [
        [1, 1, 0, 0],
        [1, 1, 0, 0],
        [0, 0, 1, 0],
        [0, 0, 0, 0],
    ]


def test_hand_worked_iou_ignores_absent_classes() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, num_classes=4)
    np.testing.assert_allclose(iou(confusion), [1 / 3, 1 / 3, 1, np.nan])
    assert mean_iou(confusion) == pytest.approx(5 / 9)


def test_a_class_only_predicted_counts_as_zero() -> None:
    confusion = confusion_matrix(np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8), num_classes=2)
    assert iou(confusion).tolist() == [0.75, 0]


def test_nothing_known() -> None:
    unknown = np.full((3, 3), 255, np.uint8)
    confusion = confusion_matrix(unknown, np.zeros((3, 3), np.uint8), num_classes=3)
    assert not confusion.any()
    assert math.isnan(mean_iou(confusion))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.integers(0, 2**16), st.integers(1, 9))
def test_halves_add_up(seed: int, split: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (10, 7))
    prediction = rng.integers(0, 3, (10, 7), dtype=np.uint8)
    whole = confusion_matrix(truth, prediction, num_classes=3)
    top = confusion_matrix(truth[:split], prediction[:split], num_classes=3)
    bottom = confusion_matrix(truth[split:], prediction[split:], num_classes=3)
    np.testing.assert_array_equal(whole, top + bottom)
    assert whole.sum() == (truth != 255).sum()


def test_all_254_classes() -> None:
    ids = np.arange(255, dtype=np.uint8).reshape(15, 17)
    confusion = confusion_matrix(ids, ids, num_classes=255)
    np.testing.assert_array_equal(confusion, np.eye(255, dtype=np.int64))


def test_shapes_differ() -> None:
    with pytest.raises(ValueError, match="resize the prediction"):
        confusion_matrix(TRUTH, PREDICTION[:1], num_classes=3)


@pytest.mark.parametrize(("truth", "prediction", "message"), [(3, 0, "truth holds class id 3"), (0, 255, "id 255")])
def test_ids_out_of_range(truth: int, prediction: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion_matrix(np.full((2, 2), truth, np.uint8), np.full((2, 2), prediction, np.uint8), num_classes=3)


def test_counts_give_the_mean_iou_of_the_matrix() -> None:
    confusion = confusion_matrix(TRUTH, PREDICTION, num_classes=4).astype(np.float64)
    hits, predicted, truth = np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    nothing_right = np.stack([hits, np.zeros(4)])
    both = mean_iou_of_counts(nothing_right, np.stack([predicted, predicted]), truth)
    np.testing.assert_allclose(both, [5 / 9, 0])
    assert np.isnan(mean_iou_of_counts(np.zeros(2), np.zeros(2), np.zeros(2)))
