import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.calibration import confidence_counts, expected_calibration_error, fit_isotonic, mean_iou_at_coverage
from raypipe.ops.metrics import confusion_matrix, mean_iou


def random_levels(seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    total = rng.integers(0, 50, 256) * rng.integers(0, 2, 256)
    total[rng.integers(256)] += 1
    return total, rng.binomial(total, np.linspace(0.3, 0.9, 256))


def test_counts_by_hand() -> None:
    truth = np.array([[0, 1, 255], [1, 2, 2]], np.uint8)
    prediction = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
    confidence = np.array([[9, 9, 9], [255, 0, 0]], np.uint8)
    hits, predicted, true = confidence_counts(truth, prediction, confidence, num_classes=3)
    assert hits[9].tolist() == [1, 0, 0]
    assert predicted[9].tolist() == [2, 0, 0]
    assert true[9].tolist() == [1, 1, 0]
    assert hits[255].tolist() == predicted[255].tolist() == true[255].tolist() == [0, 1, 0]
    assert hits.sum() == 3
    assert predicted.sum() == true.sum() == 4  # neither the unknown pixel nor the one without a label


def test_isotonic_by_hand_pools_what_falls() -> None:
    """Level 1 is right less often than level 0: their common share, 3 of 6, stands at their mean level, 2/3."""
    total, correct = np.array([2, 4, 5]), np.array([2, 1, 4])
    np.testing.assert_allclose(fit_isotonic(total, correct), [0.5, 0.5 + 0.3 / 4, 0.8])


def test_isotonic_fills_unseen_levels() -> None:
    total, correct = np.array([0, 10, 0, 0, 10, 0]), np.array([0, 3, 0, 0, 9, 0])
    np.testing.assert_allclose(fit_isotonic(total, correct), [0.3, 0.3, 0.5, 0.7, 0.9, 0.9])


def test_one_level_is_its_share_everywhere() -> None:
    np.testing.assert_allclose(fit_isotonic(np.array([0, 4, 0]), np.array([0, 1, 0])), 0.25)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**16))
def test_isotonic_ascends_and_keeps_levels_apart(seed: int) -> None:
    total, correct = random_levels(seed)
    probability = fit_isotonic(total, correct)
    assert probability.min() >= 0
    assert probability.max() <= 1
    steps = np.diff(probability)
    assert (steps >= 0).all()
    rising = np.flatnonzero(steps)
    assert (steps[slice(rising.min(), rising.max() + 1) if len(rising) else slice(0)] > 0).all()


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**16))
def test_what_ascends_already_is_kept(seed: int) -> None:
    correct = np.sort(np.random.default_rng(seed).choice(1001, 256, replace=False))
    total = np.full(256, 1000)
    np.testing.assert_allclose(fit_isotonic(total, correct), correct / 1000)
    assert expected_calibration_error(total, correct, correct / 1000) < 1e-12


def test_calibration_error_by_hand() -> None:
    """Bin (0, 0.5]: 6 pixels, 2 right, stated 0.45 on average; bin (0.5, 1]: 4 pixels, all right, stated 0.9."""
    total, correct = np.array([2, 4, 4]), np.array([0, 2, 4])
    probability = np.array([0.35, 0.5, 0.9])
    expected = 0.6 * abs(2 / 6 - 2.7 / 6) + 0.4 * 0.1
    assert expected_calibration_error(total, correct, probability, num_bins=2) == pytest.approx(expected)


def test_convention_bins_are_open_below_and_zero_is_in_the_first() -> None:
    total, correct = np.array([1, 1, 1]), np.array([1, 0, 1])
    probability = np.array([0.0, 0.5, 0.6])  # the first two share a bin, and their errors cancel in part
    assert expected_calibration_error(total, correct, probability, num_bins=2) == pytest.approx((0.5 + 0.4) / 3)


def test_all_wrong_and_sure_of_it() -> None:
    assert expected_calibration_error(np.array([3]), np.array([0]), np.array([1.0])) == 1


def test_coverage_by_hand() -> None:
    """Two sure pixels of class 1 are right; of four unsure ones half are background taken for class 1."""
    counts = np.zeros((3, 256, 2), np.int64)
    counts[:, 200] = [[0, 2], [0, 2], [0, 2]]
    counts[:, 10] = [[2, 0], [2, 2], [4, 0]]
    whole, three, sure = mean_iou_at_coverage(counts, (1.0, 0.5, 1 / 3))
    assert whole == pytest.approx((2 / 4 + 2 / 4) / 2)
    assert three == pytest.approx((0.5 / 1 + 2 / 2.5) / 2)  # a quarter of the unsure level
    assert sure == 1  # background isn't left in truth or prediction


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.integers(0, 2**16))
def test_whole_coverage_is_the_mean_iou_and_parts_add_up(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth = rng.choice(np.array([0, 1, 2, 255], np.uint8), (10, 7))
    prediction, confidence = rng.integers(0, 3, (10, 7), np.uint8), rng.integers(0, 256, (10, 7), np.uint8)
    counts = confidence_counts(truth, prediction, confidence, num_classes=3)
    top = confidence_counts(truth[:4], prediction[:4], confidence[:4], num_classes=3)
    bottom = confidence_counts(truth[4:], prediction[4:], confidence[4:], num_classes=3)
    np.testing.assert_array_equal(counts, top + bottom)
    expected = mean_iou(confusion_matrix(truth, prediction, num_classes=3))
    assert mean_iou_at_coverage(counts, (1.0,))[0] == pytest.approx(expected)


def test_leaving_out_the_wrong_pixels_leaves_no_mistake() -> None:
    counts = np.zeros((3, 256, 2), np.int64)
    counts[:, 255] = [[50, 30], [50, 30], [50, 30]]
    counts[:, 3] = [[0, 0], [20, 0], [0, 20]]
    assert mean_iou_at_coverage(counts, (0.8, 0.1)).tolist() == [1, 1]


def test_no_pixels() -> None:
    none = np.zeros(256, np.int64)
    assert np.isnan(mean_iou_at_coverage(np.zeros((3, 256, 2), np.int64), (0.8,))).all()
    with pytest.raises(ValueError, match="at least one true mask is needed"):
        fit_isotonic(none, none)
    with pytest.raises(ValueError, match="at least one true mask is needed"):
        expected_calibration_error(none, none, np.zeros(256))


def test_bad_input() -> None:
    plain = np.zeros((2, 3), np.uint8)
    with pytest.raises(ValueError, match=r"true mask is \(2, 3\) \(height, width\), the mask \(2, 2\)"):
        confidence_counts(plain, plain[:, :2], plain, num_classes=2)
    with pytest.raises(ValueError, match="truth holds class id 2"):
        confidence_counts(plain + np.uint8(2), plain, plain, num_classes=2)
    with pytest.raises(ValueError, match="prediction holds class id 3"):
        confidence_counts(plain, plain + np.uint8(3), plain, num_classes=2)
    with pytest.raises(ValueError, match="expected 0 to 2 right pixels in level 1, got 3"):
        fit_isotonic(np.array([1, 2]), np.array([1, 3]))
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 0 to 1.5"):
        expected_calibration_error(np.array([1, 1]), np.array([1, 1]), np.array([0.0, 1.5]))
    with pytest.raises(ValueError, match=r"\(0, 1\], got \[0.0\]"):
        mean_iou_at_coverage(np.zeros((3, 256, 2), np.int64), (0.5, 0.0))
