"""Colour jitter: worked by hand, against PIL's way, and within the drawn ranges."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from raypipe.ops.jitter import ColourChange, change_colours, draw_colour_change

ALL = (0, 0, 1000, 1000)
KEPT = ColourChange(1.0, 1.0, 1.0, 0.0, (0, 1, 2, 3), ALL)


def image(height: int = 24, width: int = 32, seed: int = 0) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (3, height, width), dtype=np.uint8)
    return torch.from_numpy(pixels)


def test_no_change_is_the_identity() -> None:
    assert torch.equal(change_colours(image(), KEPT), image())


def test_brightness_contrast_and_saturation_by_hand() -> None:
    pixels = torch.tensor([[[10, 200]], [[20, 100]], [[30, 0]]], dtype=torch.uint8)
    brighter = change_colours(pixels, KEPT._replace(brightness=1.5))
    assert brighter.flatten(1).T.tolist() == [[15, 30, 45], [255, 150, 0]]
    # Greys are 18.15 and 118.5 (its float32 is below), in whole numbers 18 and 118 with a mean of 68.
    flatter = change_colours(pixels, KEPT._replace(contrast=0.5))
    assert flatter.flatten(1).T.tolist() == [[39, 44, 49], [134, 84, 34]]
    greyer = change_colours(pixels, KEPT._replace(saturation=0.0))
    assert greyer.flatten(1).T.tolist() == [[18, 18, 18], [118, 118, 118]]


@pytest.mark.parametrize("turn", [-0.4, -0.1, 0.05, 0.5, 1 / 3])
def test_hue_is_turned_as_colorsys_does(turn: float) -> None:
    pixels = image(8, 8)
    turned = change_colours(pixels, KEPT._replace(hue=turn)).flatten(1).T.tolist()
    for (red, green, blue), found in zip(pixels.flatten(1).T.tolist(), turned, strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(red, green, blue)
        expected = colorsys.hsv_to_rgb((hue + turn) % 1, saturation, value)
        assert found == pytest.approx(expected, abs=0.5 + 1e-3)


def test_a_third_of_the_circle_exchanges_the_channels() -> None:
    turned = change_colours(image(), KEPT._replace(hue=1 / 3))
    assert (turned.int() - image().roll(1, 0).int()).abs().max() <= 1


def test_is_close_to_pillows_enhancements_in_the_same_order() -> None:
    change = ColourChange(1.2, 0.8, 1.3, 0.0, (2, 0, 1, 3), ALL)
    expected = Image.fromarray(image().permute(1, 2, 0).numpy())
    for enhance, factor in ((ImageEnhance.Color, 1.3), (ImageEnhance.Brightness, 1.2), (ImageEnhance.Contrast, 0.8)):
        expected = enhance(expected).enhance(factor)
    found = change_colours(image(), change).permute(1, 2, 0).numpy()
    assert np.abs(found.astype(int) - np.asarray(expected)).max() <= 3  # Pillow cuts off after each


def test_the_order_matters_and_the_numbers_stay_in_their_ranges() -> None:
    drawn = [draw_colour_change(np.random.default_rng(seed), ALL, strength=(0.3, 1.5, 0.2, 0.1)) for seed in range(200)]
    for index, (low, high) in enumerate(((0.7, 1.3), (0.0, 2.5), (0.8, 1.2), (-0.1, 0.1))):
        values = [change[index] for change in drawn]
        assert low <= min(values) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < max(values) <= high
    assert len({tuple(change.order) for change in drawn}) == 24
    strong = ColourChange(1.5, 0.5, 1.0, 0.0, (0, 1, 2, 3), ALL)
    exchanged = strong._replace(order=(1, 0, 2, 3))
    assert not torch.equal(change_colours(image(), strong), change_colours(image(), exchanged))


def test_pinned() -> None:
    # Another value would change every training.
    change = draw_colour_change(np.random.default_rng(0), ALL)
    assert change.order == [1, 2, 0, 3]
    assert change[:4] == pytest.approx((1.08217701, 0.86187202, 0.72458411, -0.0966944), abs=1e-6)


@pytest.mark.parametrize("size", [(0, 3), (1, 1), (5, 1)])
def test_images_of_few_pixels(size: tuple[int, int]) -> None:
    change = ColourChange(0.9, 1.1, 0.7, 0.03, (3, 1, 0, 2), ALL)
    assert change_colours(image(*size), change).shape == (3, *size)


def test_grey_pixels_have_no_hue() -> None:
    grey = torch.full((3, 4, 4), 77, dtype=torch.uint8)
    assert torch.equal(change_colours(grey, KEPT._replace(hue=0.2)), grey)


@pytest.mark.gpu
def test_a_card_gives_the_same_bytes() -> None:
    for seed in range(20):
        change = draw_colour_change(np.random.default_rng(seed), ALL)
        pixels = image(123, 457, seed)
        assert torch.equal(change_colours(pixels.cuda(), change).cpu(), change_colours(pixels, change))


def test_only_the_inside_is_changed() -> None:
    change = ColourChange(0.5, 1.0, 1.0, 0.0, (0, 1, 2, 3), (3, 5, 10, 20))
    found = change_colours(image(), change)
    part = change_colours(image()[:, 3:13, 5:25], change._replace(inside=ALL))
    assert torch.equal(found[:, 3:13, 5:25], part)
    outside = torch.ones(24, 32, dtype=torch.bool)
    outside[3:13, 5:25] = False
    assert torch.equal(found[:, outside], image()[:, outside])
