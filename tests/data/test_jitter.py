import numpy as np

from raypipe.data.jitter import color_jitter
from raypipe.data.transforms import augmentation_rng


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 216, (height, width, 3)).astype(np.uint8)


def test_jitter_of_zero_is_nearly_the_identity() -> None:
    image = photograph(32, 32)
    jittered = color_jitter(image, augmentation_rng(0, 0, ""), strength=(0, 0, 0, 0))
    assert np.abs(jittered.astype(int) - image).max() <= 4  # what the way to hue and back costs in 8 bit


def test_jitter_brightness_stays_in_its_range() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    means = [color_jitter(image, augmentation_rng(s, 0, ""), strength=(0.3, 0, 0, 0)).mean() for s in range(50)]
    assert min(means) >= 69
    assert max(means) <= 131
    assert np.ptp(means) > 45


def test_jitter_turns_the_hue() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 200
    greens = [int(color_jitter(image, augmentation_rng(s, 0, ""), strength=(0, 0, 0, 0.1))[0, 0, 1]) for s in range(40)]
    assert 90 < max(greens) <= 0.6 * 200 + 5  # a tenth of the circle is 36 of the 60 degrees from red to yellow
