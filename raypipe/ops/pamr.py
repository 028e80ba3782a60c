r"""PAMR: pixel-adaptive mask refinement, which moves a mask's edges to the image's.

    sigma_i^c = std over the samples of pixel i          (unbiased; the 3x3 patches of all dilations, centre included)
    k_il = mean_c( -|x_i^c - x_l^c| / (1e-8 + 0.1 sigma_i^c) )
    a_il = exp(k_il) / sum_m exp(k_im)                   over the 8 neighbours at each dilation
    m_i <- sum_l a_il m_l                                `num_iters` times

with the image x of channels c and the mask m.

Conventions. A neighbour beyond the border is the border's pixel. The mask is first resized to the image, bilinearly
with align_corners=True. A pixel isn't its own neighbour, but it counts among the samples of sigma, once for each
dilation.

The weights are computed once for all maps; neighbours are views of the padded maps and never gathered. Besides the
result this takes memory for 8 weights for each dilation and pixel, and for copies of image and maps.

Source: Araslanov and Roth, "Single-Stage Semantic Segmentation from Image Labels", CVPR 2020,
https://arxiv.org/abs/2005.08104, §3.3.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Dilations of the authors' released code."""

_EPS = 1e-8
_SHARPNESS = 0.1
_DIRECTIONS = tuple((dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0))


def pamr(
    image: Float[Tensor, "B 3 H W"],
    mask: Float[Tensor, "B C h w"],
    *,
    num_iters: int = 10,
    dilations: Sequence[int] = DILATIONS,
) -> Float[Tensor, "B C H W"]:
    """Refines maps by the image; the result is linear in the maps.

    Args:
        image: RGB in [0, 1], though its scale doesn't matter. It gets no gradient.
        mask: maps of any range; each is refined by itself.
        num_iters: number of rounds.
        dilations: distances in pixels at which each pixel has 8 neighbours.

    Returns:
        Maps of the image's size, whose values stay within their range before.

    Raises:
        ValueError: there are no dilations or some aren't positive, `num_iters` is negative, or something is empty.
    """
    if not dilations or min(dilations) < 1:
        raise ValueError(
            f"expected at least one dilation, all positive (the paper: {DILATIONS}), got {tuple(dilations)}"
        )
    if num_iters < 0:
        raise ValueError(f"expected num_iters of at least 0 (the paper: 10), got {num_iters}")
    if 0 in (*image.shape[2:], *mask.shape[2:]):
        raise ValueError(f"expected at least one pixel, got image {tuple(image.shape)} and mask {tuple(mask.shape)}")
    if mask.numel() == 0:
        return mask.new_empty(*mask.shape[:2], *image.shape[2:])
    refined = F.interpolate(mask, size=image.shape[2:], mode="bilinear", align_corners=True)
    # A CPU takes one image at a time, because the weights of one stay in its cache.
    size = 1 if mask.device.type == "cpu" else len(mask)
    parts = zip(torch.split(image.detach(), size), torch.split(refined, size), strict=True)
    return torch.cat([_refine(*part, num_iters=num_iters, dilations=dilations) for part in parts])


def _refine(image: Tensor, maps: Tensor, *, num_iters: int, dilations: Sequence[int]) -> Tensor:
    if num_iters == 0:
        return maps
    weights = _weights(image, dilations).to(maps.dtype)
    for _ in range(num_iters):
        maps = _propagate(maps, weights, dilations)
    return maps


def _weights(image: Tensor, dilations: Sequence[int]) -> Tensor:
    """Returns the weights a, (B, 8 D, H, W), in the order of `_neighbours`."""
    num_samples = 9 * len(dilations)
    mean = len(dilations) * image
    for neighbour in _neighbours(image, dilations):
        mean += neighbour
    mean /= num_samples
    variance = len(dilations) * (image - mean).square_()
    for neighbour in _neighbours(image, dilations):
        variance += (neighbour - mean).square_()
    scale = -1 / (image.shape[1] * (_EPS + _SHARPNESS * (variance / (num_samples - 1)).sqrt_()))
    similarity = image.new_empty(image.shape[0], 8 * len(dilations), *image.shape[2:])
    for index, neighbour in enumerate(_neighbours(image, dilations)):
        torch.sum((neighbour - image).abs_().mul_(scale), dim=1, out=similarity[:, index])
    # The softmax is computed in place, which halves the memory.
    similarity -= similarity.amax(dim=1, keepdim=True)
    similarity.exp_()
    similarity /= similarity.sum(dim=1, keepdim=True)
    return similarity


def _propagate(maps: Tensor, weights: Tensor, dilations: Sequence[int]) -> Tensor:
    """Computes one round: sum_l a_il m_l."""
    total = torch.zeros_like(maps)
    for index, neighbour in enumerate(_neighbours(maps, dilations)):
        total.addcmul_(weights[:, index, None], neighbour)
    return total


def _neighbours(maps: Tensor, dilations: Sequence[int]) -> Iterator[Tensor]:
    """Yields views (B, C, H, W) of each pixel's neighbours, one direction and dilation after another."""
    height, width = maps.shape[2:]
    reach = max(dilations)
    padded = F.pad(maps, (reach,) * 4, mode="replicate")
    for dilation in dilations:
        for dy, dx in _DIRECTIONS:
            top, left = reach + dilation * dy, reach + dilation * dx
            yield padded[..., top : top + height, left : left + width]
