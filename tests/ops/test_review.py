import numpy as np
import pytest

from raypipe.ops.review import expected_gain

TOTALS, COUNTS = np.array([2.0, 0.5, 0.0]), np.array([8, 2, 0])


def gain(areas: list[float], labels: list[int], predicted_iou: float) -> list[float]:
    labelled = np.zeros((1, 3), bool)
    labelled[0, labels] = True
    parts = expected_gain(np.array([areas]), labelled, np.array([predicted_iou]), totals=TOTALS, counts=COUNTS)
    return [float(part) for part in parts[0]]


def test_hand_worked() -> None:
    assert gain([0.4, 0.2, 0.0], [0, 1], 0.75) == pytest.approx([0.25 * 0.2, 0.25 * 0.4, 0])


def test_a_class_that_is_missing_counts_as_in_the_mean_mask_that_holds_it() -> None:
    mean = TOTALS[1] / COUNTS[1]
    assert gain([0.0, 0.0, 0.0], [1], 0.5) == pytest.approx(gain([0.0, mean, 0.0], [1], 0.5))


def test_a_class_that_no_mask_holds_is_at_stake_as_a_whole() -> None:
    assert gain([0.0, 0.0, 0.0], [2], 0.0) == [0, 0, 1]


def test_no_label_and_no_doubt_mean_no_gain() -> None:
    assert gain([0.0, 0.0, 0.0], [], 0.1) == [0, 0, 0]
    assert gain([0.4, 0.2, 0.0], [0, 1], 1.0) == [0, 0, 0]


def test_worse_larger_and_rarer_come_first() -> None:
    plain = sum(gain([0.2, 0.0, 0.0], [0], 0.5))
    assert sum(gain([0.2, 0.0, 0.0], [0], 0.4)) > plain
    assert sum(gain([0.3, 0.0, 0.0], [0], 0.5)) > plain
    assert sum(gain([0.0, 0.2, 0.0], [1], 0.5)) > plain
