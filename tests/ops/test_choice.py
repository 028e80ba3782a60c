import numpy as np
import pytest

from raypipe.ops.choice import choose_by_objective, choose_with_truth, resample


def test_by_the_objective() -> None:
    values = np.array([[0.2, 0.9, 0.3], [0.4, 0.5, 0.3]])
    choice = choose_by_objective(lambda weights: weights @ values / weights.sum(), num_images=2)
    assert choice.index == 1
    np.testing.assert_allclose(choice.scores, [0.3, 0.7, 0.3])
    assert 0.5 <= choice.low <= 0.7 <= choice.high <= 0.9
    assert choice.regret == 0  # it is the best of both images


def test_the_interval_shrinks_with_images() -> None:
    values = np.random.default_rng(0).random((400, 3))

    def width(number: int) -> float:
        choice = choose_by_objective(
            lambda weights: weights @ values[:number] / number, num_images=number, num_resamples=400
        )
        return choice.high - choice.low

    assert width(400) == pytest.approx(width(100) / 2, rel=0.3)


HIDDEN = 34


def simulated(num_images: int, *, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True IoU that follows the objective but for one setting, and its measurements on images."""
    rng = np.random.default_rng(seed)
    objective = np.exp(np.linspace(-2, 0, 40))
    truth = 0.3 + 0.1 * np.log(objective)
    truth[HIDDEN] += 0.4  # the objective doesn't see how good this one is
    return objective, truth, truth + noise * rng.standard_normal((num_images, len(truth)))


def test_many_true_masks_overrule_the_objective() -> None:
    objective, truth, measured = simulated(400, noise=0.05)
    choice = choose_with_truth(objective, lambda w: w @ measured / w.sum(), num_images=400)
    assert choice.index == truth.argmax() == HIDDEN
    np.testing.assert_allclose(choice.scores[30:], truth[30:], atol=0.02)
    assert np.isnan(choice.scores[:30]).all()  # not among the ten candidates
    assert choice.low <= truth[HIDDEN] <= choice.high


def test_noise_is_drawn_to_the_objective() -> None:
    """A few noisy masks alone would choose at random; drawn to the objective the choice is good."""
    losses, alone = [], []
    for seed in range(20):
        objective, truth, measured = simulated(4, noise=0.5, seed=seed)
        truth[HIDDEN] -= 0.4  # nothing is hidden
        measured[:, HIDDEN] -= 0.4
        choice = choose_with_truth(objective, lambda w, m=measured: w @ m / w.sum(), num_images=4, num_resamples=50)
        losses.append(truth.max() - truth[choice.index])
        alone.append(truth.max() - truth[measured.mean(axis=0).argmax()])
    assert np.mean(losses) < 0.6 * np.mean(alone)


def test_the_same_draws_in_every_run() -> None:
    first, second = (
        resample(lambda weights: weights, num_images=5, num_resamples=3, seed=7),
        resample(lambda weights: weights, num_images=5, num_resamples=3, seed=7),
    )
    np.testing.assert_array_equal(first, second)
    assert (first.sum(axis=1) == 5).all()


def test_no_images() -> None:
    with pytest.raises(ValueError, match="at least one"):
        choose_by_objective(lambda weights: weights, num_images=0)
    with pytest.raises(ValueError, match="no image with a true mask"):
        choose_with_truth(np.ones(2), lambda weights: weights, num_images=0)
