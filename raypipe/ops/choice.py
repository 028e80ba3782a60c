"""Chooses a setting by the separation alone, or with the help of a few true masks.

Conventions. N images, S settings. The uncertainty is that of the sample of images, so intervals come from resampling
images with replacement (the bootstrap; Efron, 1979).

Without truth the setting with the highest `objective` of the mean separations is chosen.

With the true masks of N images, the mean IoU m_s of the few settings with the highest objective o_s is measured as
well. On few images it owes as much to chance as to merit, so it is drawn towards its regression on the objective,

    estimate_s = a + b log o_s + w r_s,   r_s = m_s - a - b log o_s,   w = max(0, 1 - noise / var_s(r))

with a and b >= 0 by least squares over these settings, and `noise` the mean over them of the bootstrap's variance of
r_s (James and Stein, 1961, in Efron and Morris's empirical Bayes form). So the objective decides on ten images, and the
measurement on many.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_EPS = 1e-6


@dataclass(frozen=True)
class Choice:
    """A chosen setting, and how sure the choice is."""

    index: int
    """Index of the chosen setting."""
    scores: NDArray[np.float64]
    """What was maximised, for each setting: the objective, or the estimated mean IoU."""
    low: float
    """Lower bound of the 95 % bootstrap interval of the chosen setting's score."""
    high: float
    """Upper bound of the interval."""
    regret: float
    """Mean over the resamples of what the choice loses against the best setting there, in units of `scores`."""


def choose_by_objective(
    score: Callable[[NDArray[np.float64]], Float[np.ndarray, " S"]],
    *,
    num_images: int,
    num_resamples: int = 200,
    seed: int = 0,
) -> Choice:
    """Returns the setting with the highest score.

    Args:
        score: maps weights (N,) of the images, which sum to N, to one score for each setting.
        num_images: N.
        num_resamples: number of resamples of the bootstrap.
        seed: seed of the bootstrap.

    Raises:
        ValueError: there is no image.
    """
    if num_images < 1:
        raise ValueError("expected at least one image with a label to choose a setting by, got none")
    scores = np.asarray(score(np.ones(num_images)))
    index = int(scores.argmax())
    samples = resample(score, num_images=num_images, num_resamples=num_resamples, seed=seed)
    return _choice(index, scores, samples)


def choose_with_truth(
    objective: Float[np.ndarray, " S"],
    mean_iou: Callable[[NDArray[np.float64]], Float[np.ndarray, " S"]],
    *,
    num_images: int,
    num_candidates: int = 10,
    num_resamples: int = 200,
    seed: int = 0,
) -> Choice:
    """Returns the setting with the highest estimated mean IoU among those with the highest objective.

    Args:
        objective: objective of each setting, over all images.
        mean_iou: maps weights (N,) of the images with truth to each setting's mean IoU on them.
        num_images: N, the number of images with truth.
        num_candidates: number of settings to choose among; the scores of the others are nan.
        num_resamples: as in `choose_by_objective`.
        seed: as in `choose_by_objective`.

    Raises:
        ValueError: as for `choose_by_objective`.
    """
    if num_images < 1:
        raise ValueError("there is no image with a true mask; choose by the objective")
    candidates = np.argsort(-objective, kind="stable")[:num_candidates]
    merit = np.log(np.maximum(objective[candidates], _EPS))
    measured = np.asarray(mean_iou(np.ones(num_images)))[candidates]
    samples = resample(mean_iou, num_images=num_images, num_resamples=num_resamples, seed=seed)[:, candidates]
    fitted, of_samples = _regress(merit, measured[None])[0], _regress(merit, samples)
    residual, residuals = measured - fitted, samples - of_samples
    weight = max(0.0, 1 - residuals.var(axis=0).mean() / max(residual.var(), _EPS**2))
    estimate = fitted + weight * residual
    chosen = _choice(int(estimate.argmax()), estimate, of_samples + weight * residuals)
    scores = np.full(len(objective), np.nan)
    scores[candidates] = estimate
    return replace(chosen, index=int(candidates[chosen.index]), scores=scores)


def _regress(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the least-squares fits (R, S) of y (R, S) on x (S,); a falling fit is replaced by the mean."""
    centred = x - x.mean()
    slope = np.maximum(y @ centred / max(centred @ centred, _EPS**2), 0)
    fitted: NDArray[np.float64] = y.mean(axis=1, keepdims=True) + slope[:, None] * centred
    return fitted


def resample(
    score: Callable[[NDArray[np.float64]], Float[np.ndarray, " S"]], *, num_images: int, num_resamples: int, seed: int
) -> Float[np.ndarray, "num_resamples S"]:
    """Returns the scores of resamples of the images.

    Args:
        score: maps weights of the images to scores.
        num_images: N.
        num_resamples: number of resamples.
        seed: seed of the draws.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
    return np.stack([score(weights.astype(np.float64)) for weights in draws])


def _choice(index: int, scores: NDArray[np.float64], samples: NDArray[np.float64]) -> Choice:
    low, high = np.quantile(samples[:, index], [0.025, 0.975])
    regret = (samples.max(axis=1) - samples[:, index]).mean()
    return Choice(index=index, scores=scores, low=float(low), high=float(high), regret=float(regret))
