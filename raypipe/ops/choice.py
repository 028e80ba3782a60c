"""Choosing a setting: by the separation alone, or with a few true masks on top.

Conventions. N images, S settings. What is uncertain is which images one happens to have, so intervals come from
resampling images with replacement (the bootstrap; Efron, 1979).

Without truth the setting with the highest `objective` of the mean separations is chosen.

With truth of N images their mean IoU m_s is measured as well, but on few images by chance as much as by merit. The
objective o_s orders the settings nearly as the true mean IoU does, so m_s is drawn to its regression on it,

    estimate_s = a + b log o_s + w r_s,   r_s = m_s - a - b log o_s,   w = max(0, 1 - noise / var_s(r))

with a and b by least squares over the settings, and `noise` the mean over the settings of the bootstrap's variance of
r_s (James and Stein, 1961, in Efron and Morris's empirical Bayes form): on ten images the objective decides, on many
the measurement.
"""

from collections.abc import Callable
from dataclasses import dataclass

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
    num_resamples: int = 200,
    seed: int = 0,
) -> Choice:
    """The setting with the highest estimated mean IoU.

    Args:
        objective: of each setting, over all images.
        mean_iou: weights (N,) of the images with truth to the settings' mean IoU on them.
        num_images: N, images with truth.
        num_resamples: as in `choose_by_objective`.
        seed: as in `choose_by_objective`.

    Raises:
        ValueError: as `choose_by_objective`.
    """
    if num_images < 1:
        raise ValueError("there is no image with a true mask; choose by the objective")
    log_objective = np.log(np.maximum(objective, _EPS))
    design = np.stack([np.ones_like(log_objective), log_objective], axis=1)
    project = design @ np.linalg.pinv(design)  # onto what the objective explains

    measured = np.asarray(mean_iou(np.ones(num_images)))
    samples = resample(mean_iou, num_images=num_images, num_resamples=num_resamples, seed=seed)
    residual, residuals = measured - project @ measured, samples - samples @ project.T
    noise = residuals.var(axis=0).mean()
    weight = max(0.0, 1 - noise / max(residual.var(), _EPS**2))
    scores = project @ measured + weight * residual
    return _choice(int(scores.argmax()), scores, samples @ project.T + weight * residuals)


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
