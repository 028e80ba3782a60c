"""Choosing a setting: by the separation alone, or with a few true masks on top.

Conventions. N images, S settings. What is uncertain is which images one happens to have, so intervals come from
resampling images with replacement (the bootstrap; Efron, 1979).

Without truth the setting with the highest `objective` of the mean separations is chosen.

With truth of N images the mean IoU m_s of the few settings with the highest objective o_s is measured as well, but on
few images it is as much chance as merit. It is drawn to its regression on the objective,

    estimate_s = a + b log o_s + w r_s,   r_s = m_s - a - b log o_s,   w = max(0, 1 - noise / var_s(r))

with a and b >= 0 by least squares over these settings, and `noise` the mean over them of the bootstrap's variance of
r_s (James and Stein, 1961, in Efron and Morris's empirical Bayes form): on ten images the objective decides, on many
the measurement.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

_EPS = 1e-6


@dataclass(frozen=True)
class Choice:
    """A chosen setting and how sure that is."""

    index: int
    """Of the setting."""
    scores: NDArray[np.float64]
    """What was maximised, a setting: the objective, or the estimated mean IoU."""
    low: float
    """Of the chosen one's score: 95 % interval."""
    high: float
    """See `low`."""
    regret: float
    """What the choice loses against the best, as a mean over the resamples, in units of `scores`."""


def choose_by_objective(
    score: Callable[[NDArray[np.float64]], Float[np.ndarray, " S"]],
    *,
    num_images: int,
    num_resamples: int = 200,
    seed: int = 0,
) -> Choice:
    """The setting with the highest score.

    Args:
        score: weights (N,) of the images, summing to N, to a score a setting.
        num_images: N.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: if there is no image.
    """
    if num_images < 1:
        raise ValueError("there is no image to choose a setting by; it takes at least one that has a label")
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
    """The setting with the highest estimated mean IoU among those with the highest objective.

    Args:
        objective: of each setting, over all images.
        mean_iou: weights (N,) of the images with truth to the settings' mean IoU on them.
        num_images: N, images with truth.
        num_candidates: settings to choose among; the others' scores are nan.
        num_resamples: as in `choose_by_objective`.
        seed: as in `choose_by_objective`.

    Raises:
        ValueError: as `choose_by_objective`.
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
    """Least-squares fits (R, S) of y (R, S) on x (S,), falling ones replaced by the mean."""
    centred = x - x.mean()
    slope = np.maximum(y @ centred / max(centred @ centred, _EPS**2), 0)
    fitted: NDArray[np.float64] = y.mean(axis=1, keepdims=True) + slope[:, None] * centred
    return fitted


def resample(
    score: Callable[[NDArray[np.float64]], Float[np.ndarray, " S"]], *, num_images: int, num_resamples: int, seed: int
) -> Float[np.ndarray, "num_resamples S"]:
    """Scores of resamples of the images.

    Args:
        score: weights of the images to scores.
        num_images: N.
        num_resamples: how many.
        seed: of the draws.
    """
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=num_resamples)
    return np.stack([score(weights.astype(np.float64)) for weights in draws])


def _choice(index: int, scores: NDArray[np.float64], samples: NDArray[np.float64]) -> Choice:
    low, high = np.quantile(samples[:, index], [0.025, 0.975])
    regret = (samples.max(axis=1) - samples[:, index]).mean()
    return Choice(index=index, scores=scores, low=float(low), high=float(high), regret=float(regret))
