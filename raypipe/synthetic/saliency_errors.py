"""Simulates saliency maps of synthetic pictures with the three errors that EPS++ names, at known rates.

    missing class: in a picture of several classes, one isn't salient at all
    missing object: in a picture of several animals, one isn't salient
    false object: a patch of the background is salient

Each error occurs, independently of the others, with probability `rate` in every picture that allows it. The same random
numbers are drawn for every rate, so the errors at a lower rate are among those at a higher one.

Source: Lee et al., "Saliency as Pseudo-Pixel Supervision for Weakly and Semi-Supervised Semantic Segmentation", TPAMI
2023, names the errors; how they look here is this package's own.
"""

import numpy as np
from numpy.typing import NDArray

FALSE_AREAS = (0.04, 0.12)
"""Smallest and largest share of the picture that a false object takes, before animals hide a part of it."""
MIN_FALSE_SHARE = 0.02
"""Share of a false object that must be visible; otherwise it is put elsewhere."""

_TRIES = 12


def simulate_saliency(
    mask: NDArray[np.uint8], objects: NDArray[np.uint8], rng: np.random.Generator, *, rate: float
) -> NDArray[np.uint8]:
    """Returns the saliency map of one picture.

    Args:
        mask: (H, W) class ids; 0 is background.
        objects: (H, W) number of the visible animal; 0 is background.
        rng: the picture's random generator.
        rate: probability of each error, in [0, 1].

    Returns:
        (H, W), 255 where salient, else 0.

    Raises:
        ValueError: `rate` isn't a probability.
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"expected a rate of saliency errors from 0 to 1, got {rate}")
    happens = rng.random(3) < rate
    class_ids, numbers = (np.unique(values[values > 0]) for values in (mask, objects))
    missing_class, missing_object = (int(rng.integers(max(1, len(found)))) for found in (class_ids, numbers))
    false_object = _draw_patch(mask == 0, rng)
    salient = mask > 0
    if happens[0] and len(class_ids) > 1:
        salient &= mask != class_ids[missing_class]
    if happens[1] and len(numbers) > 1:
        salient &= objects != numbers[missing_object]
    if happens[2]:
        salient |= false_object
    return np.where(salient, np.uint8(255), np.uint8(0))


def _draw_patch(background: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draws an ellipse of background pixels, or an empty one if no place for it is found."""
    height, width = background.shape
    rows, columns = np.mgrid[:height, :width]
    for _ in range(_TRIES):
        area, aspect = rng.uniform(*FALSE_AREAS) * height * width, rng.uniform(0.6, 1)
        across, along = np.sqrt(area / (np.pi * aspect)), np.sqrt(area * aspect / np.pi)
        angle, row, column = rng.uniform(0, np.pi), rng.uniform(0, height), rng.uniform(0, width)
        dy, dx = rows - row, columns - column
        u, v = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
        patch: NDArray[np.bool_] = ((u / across) ** 2 + (v / along) ** 2 < 1) & background
        if patch.sum() >= MIN_FALSE_SHARE * height * width:
            return patch
    return np.zeros_like(background)
