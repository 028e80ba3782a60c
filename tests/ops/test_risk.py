import numpy as np
import pytest

from raypipe.ops.risk import risk_at_coverage


def test_risks_by_hand():
    certainty, loss = np.array([0.9, 0.1, 0.5, 0.7]), np.array([0.0, 1.0, 0.5, 0.1])
    risks = risk_at_coverage(certainty, loss, (0.25, 0.5, 0.75, 1.0))
    np.testing.assert_allclose(risks, [0, 0.05, 0.2, 0.4])


def test_equal_certainties_give_the_mean_everywhere():
    loss = np.random.default_rng(0).random(40)
    np.testing.assert_allclose(risk_at_coverage(np.zeros(40), loss, (0.1, 0.5, 1.0)), loss.mean())


def test_no_order_is_better_than_that_of_the_loss():
    rng = np.random.default_rng(0)
    loss, coverages = rng.random(40), (0.1, 0.3, 0.6, 1.0)
    best = risk_at_coverage(-loss, loss, coverages)
    assert (np.diff(best) >= 0).all()
    assert (risk_at_coverage(rng.random(40), loss, coverages) >= best - 1e-12).all()


def test_at_least_one_image_is_kept():
    assert risk_at_coverage(np.array([1.0, 2.0]), np.array([0.4, 0.6]), (0.01,)).tolist() == [0.6]


def test_bad_input():
    with pytest.raises(ValueError, match="one certainty and one loss for each image, got 0 and 0"):
        risk_at_coverage(np.zeros(0), np.zeros(0), (1.0,))
    with pytest.raises(ValueError, match=r"got \[0.0\]"):
        risk_at_coverage(np.zeros(1), np.zeros(1), (0.0, 1.0))
