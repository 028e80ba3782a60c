"""Changes the colours of an 8-bit image at random: brightness, contrast, saturation and hue."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

DEFAULT_JITTER = (0.3, 0.3, 0.3, 0.1)
"""Largest relative change of brightness, contrast and saturation, and largest rotation of the hue."""


def color_jitter(
    pixels: NDArray[np.uint8], rng: np.random.Generator, *, strength: Sequence[float] = DEFAULT_JITTER
) -> NDArray[np.uint8]:
    """Changes brightness, contrast, saturation and hue at random, in random order.

    Args:
        pixels: (H, W, 3).
        rng: generator from `augmentation_rng`.
        strength: (brightness, contrast, saturation, hue). The first three factors are drawn from [1 - s, 1 + s], the
            rotation of the hue from [-s, s] of the full circle.

    Returns:
        (H, W, 3).
    """
    brightness, contrast, saturation = (float(rng.uniform(max(0.0, 1 - s), 1 + s)) for s in strength[:3])
    turn = float(rng.uniform(-strength[3], strength[3]))
    steps: list[Callable[[Image.Image], Image.Image]] = [
        lambda image: ImageEnhance.Brightness(image).enhance(brightness),
        lambda image: ImageEnhance.Contrast(image).enhance(contrast),
        lambda image: ImageEnhance.Color(image).enhance(saturation),
        lambda image: _turn_hue(image, turn),
    ]
    image = Image.fromarray(pixels)
    for index in rng.permutation(len(steps)):
        image = steps[index](image)
    return np.asarray(image)


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shift = round(turn * 255)
    hue = hue.point([(level + shift) % 256 for level in range(256)])
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
