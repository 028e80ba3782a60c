"""Colour jitter: brightness, contrast, saturation and hue of an 8-bit image, changed at random, in random order.

    brightness: x -> f x                      contrast: x -> m + f (x - m), m the image's mean grey
    saturation: x -> y + f (x - y), y the pixel's grey 0.299 r + 0.587 g + 0.114 b
    hue: turned by a share of the circle, at the same maximum and chroma

Conventions. Values go from 0 to 255 and are clamped after each change, but rounded only in the end.

The random numbers are drawn apart from the work, so that the process which draws them needn't be the one that computes.
Every device gives the same bytes: each operation is one of torch's that rounds once, products and sums apart, and the
only sum over pixels is one of whole numbers.

Source: torchvision's `ColorJitter`, which psa trains with.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

DEFAULT_JITTER = (0.3, 0.3, 0.3, 0.1)
"""Largest relative change of brightness, contrast and saturation, and largest turn of the hue; psa's."""

Planes = list[Tensor]
"""Red, green and blue, (H, W) float32 each."""


class ColourChange(NamedTuple):
    """What `draw_colour_change` has drawn for an image."""

    brightness: float
    """Factor, as are the next two."""
    contrast: float
    saturation: float
    hue: float
    """Share of the full circle."""
    order: Sequence[int]
    """Which of the four comes first, second, third and last, by their places here."""
    inside: Sequence[int]
    """Top, left, height and width in pixels of what is changed."""


def draw_colour_change(
    rng: np.random.Generator, inside: Sequence[int], *, strength: Sequence[float] = DEFAULT_JITTER
) -> ColourChange:
    """Draws a change of colours.

    Args:
        rng: the image's generator.
        inside: top, left, height and width of what is to be changed.
        strength: s of brightness, contrast, saturation and hue. The first three factors are drawn from [1 - s, 1 + s],
            negative ones from 0 on; the turn of the hue from [-s, s] of the full circle.
    """
    brightness, contrast, saturation = (float(rng.uniform(max(0.0, 1 - s), 1 + s)) for s in strength[:3])
    hue = float(rng.uniform(-strength[3], strength[3]))
    return ColourChange(brightness, contrast, saturation, hue, rng.permutation(4).tolist(), inside)


def change_colours(pixels: UInt8[Tensor, "3 H W"], change: ColourChange) -> UInt8[Tensor, "3 H W"]:
    """Changes the colours of a part of an image.

    Args:
        pixels: RGB.
        change: what `draw_colour_change` has drawn.

    Returns:
        RGB on the same device, for which nothing waits.
    """
    top, left, height, width = change.inside
    steps: tuple[Callable[[Planes], Planes], ...] = (
        lambda planes: [_clamped(plane * change.brightness) for plane in planes],
        lambda planes: _blend(planes, _mean_grey(planes), change.contrast),
        lambda planes: _blend(planes, _grey(planes), change.saturation),
        lambda planes: _turn_hue(planes, change.hue),
    )
    part = pixels[:, top : top + height, left : left + width]
    planes = [plane.float() for plane in part.unbind(0)]
    for index in change.order:
        planes = steps[index](planes)
    changed = pixels.clone()
    changed[:, top : top + height, left : left + width] = torch.stack(planes).round_().to(torch.uint8)
    return changed


def _clamped(plane: Tensor) -> Tensor:
    return plane.clamp_(0, 255)


def _blend(planes: Planes, other: Tensor, factor: float) -> Planes:
    return [_clamped((plane - other).mul_(factor).add_(other)) for plane in planes]


def _grey(planes: Planes) -> Tensor:
    red, green, blue = planes
    return (red * 0.299).add_(green * 0.587).add_(blue * 0.114)


def _mean_grey(planes: Planes) -> Tensor:
    grey = _grey(planes).round_().to(torch.int32)
    return (grey.sum().double() / max(1, grey.numel())).round_().float()


def _turn_hue(planes: Planes, turn: float) -> Planes:
    red, green, blue = planes
    largest = torch.maximum(torch.maximum(red, green), blue)
    chroma = largest - torch.minimum(torch.minimum(red, green), blue)
    divisor = torch.where(chroma > 0, chroma, 1.0)  # a grey pixel has no hue, and keeps its colour whatever it gets
    sixths = torch.where(
        largest == red,
        (green - blue).div_(divisor),
        torch.where(largest == green, (blue - red).div_(divisor).add_(2.0), (red - green).div_(divisor).add_(4.0)),
    ).add_(6 * turn)
    # A channel is at its maximum within a sixth of the circle from its own colour, and falls to the minimum behind.
    turned = []
    for place in (5.0, 3.0, 1.0):
        angle = (sixths + place).remainder_(6.0)
        share = torch.minimum(angle, 4.0 - angle).clamp_(0, 1)
        turned.append(largest - share.mul_(chroma))
    return turned
