"""Affinity: how likely two neighbouring cells of the feature grid show the same class.

    W_ij = exp( -(1/C) sum_c |f_i^c - f_j^c| )        for all pairs with 0 < |i - j| < radius

Conventions. Every unordered pair is stored once, at the cell from which its offset (dy, dx) starts: entry [k, y, x]
belongs to the cells (y, x) and (y + dy_k, x + dx_k). Offsets cover the half disc below and to the right: (0,
1..radius-1), then dy = 1..radius-1 with dx ascending. Entries whose second cell lies outside the grid are 0 (False in
labels). All in-radius pairs are used; the authors' released code starts pairs only from rows 0..h-radius and columns
radius-1..w-radius, which leaves the corners of the grid without a neighbour.

Source: Ahn and Kwak, "Learning Pixel-level Semantic Affinity with Image-level Supervision" (AffinityNet), CVPR 2018,
https://arxiv.org/abs/1803.10464, §3.2-3.3.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from raypipe.schema import BACKGROUND, IGNORE

PairMask = Bool[Tensor, "*batch num_offsets h w"]

_CACHE_BYTES = 2**20
"""Bytes of differences that are computed at once on a CPU, so that they stay in a core's second-level cache."""


@lru_cache(maxsize=16)
def pair_offsets(radius: int) -> Int[np.ndarray, "num_offsets 2"]:
    """Returns the offsets (dy, dx) of the half disc dy^2 + dx^2 < radius^2, without the cell itself.

    Args:
        radius: the paper's gamma, in cells; 5 gives 34 offsets, 10 gives 152, 1 gives none.

    Returns:
        A read-only array; order: (0, 1..radius-1), then dy = 1..radius-1 with dx ascending.

    Raises:
        ValueError: the radius is below 1.
    """
    if radius < 1:
        raise ValueError(f"expected a radius of at least 1 (the paper's gamma is 5), got {radius}")
    reach = range(-radius + 1, radius)
    offsets = [(dy, dx) for dy in range(radius) for dx in reach if (dy, dx) > (0, 0) and dy**2 + dx**2 < radius**2]
    array = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    array.flags.writeable = False
    return array


class GridPair(NamedTuple):
    """Offset k on a grid of given size: cell i of the flattened grid is paired with cell i + shift where `inside`."""

    k: int
    shift: int
    inside: Bool[np.ndarray, " num_starts"]


@lru_cache(maxsize=64)
def grid_pairs(height: int, width: int, radius: int) -> tuple[GridPair, ...]:
    """Returns the offsets that fit a grid, as shifts of its flattened cells.

    Along the flattened grid an offset is the constant shift dy * width + dx, so that operations on pairs run over long
    contiguous rows; `inside` (num_cells - shift entries) is False where the shift wraps around the grid's left or right
    border. Offsets wider or higher than the grid are left out.
    """
    pairs = []
    x = np.arange(width)
    for k, (dy, dx) in enumerate(pair_offsets(radius).tolist()):
        if dy >= height or abs(dx) >= width:
            continue
        shift = dy * width + dx
        inside = np.tile((x + dx >= 0) & (x + dx < width), height)[: height * width - shift]
        inside.flags.writeable = False
        pairs.append(GridPair(k, shift, inside))
    return tuple(pairs)


@lru_cache(maxsize=64)
def inside_grid(height: int, width: int, radius: int, device: torch.device) -> Bool[Tensor, "num_offsets N"]:
    """Returns whether a pair starts at the cell; the result stays on the device, which a copy would make wait."""
    inside = torch.zeros(len(pair_offsets(radius)), height * width, dtype=torch.bool)
    for k, _, starts in grid_pairs(height, width, radius):
        inside[k, : len(starts)] = torch.from_numpy(starts.copy())
    return inside.to(device)


class _PairwiseAffinity(torch.autograd.Function):
    """exp(-mean |f_i - f_j|), whose backward pass recomputes the signs of the differences.

    Plain autograd would keep the (C, h, w) differences of every offset, 1.4 GB at (8, 448, 56, 56); this keeps none.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, radius: int) -> Tensor:
        batch, channels, height, width = features.shape
        flat = features.reshape(batch, channels, height * width)
        distances = features.new_zeros(batch, len(pair_offsets(radius)), height * width)
        for sample, block in _blocks(flat):
            cells = flat[sample, block]
            for k, shift, _ in grid_pairs(height, width, radius):
                difference = cells[..., shift:] - cells[..., : cells.shape[-1] - shift]
                distances[sample, k, : difference.shape[-1]] += difference.abs_().sum(dim=-2)
        affinity = distances.div_(-channels).exp_().mul_(inside_grid(height, width, radius, features.device))
        ctx.radius = radius
        ctx.save_for_backward(features, affinity)
        return affinity.reshape(*affinity.shape[:2], height, width)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        features, affinity = ctx.saved_tensors
        batch, channels, height, width = features.shape
        flat = features.reshape(batch, channels, height * width)
        # d W_ij / d f_i = -W_ij sign(f_i - f_j) / C; outside the grid W_ij = 0, so wrapped pairs drop out.
        slopes = gradient.reshape(affinity.shape) * affinity / channels
        result = torch.zeros_like(flat)
        for sample, block in _blocks(flat):
            cells, grads = flat[sample, block], result[sample, block]
            for k, shift, _ in grid_pairs(height, width, ctx.radius):
                num_starts = cells.shape[-1] - shift
                sign = (cells[..., shift:] - cells[..., :num_starts]).sign_()
                slope = slopes[sample, k, :num_starts].unsqueeze(-2)
                grads[..., :num_starts].addcmul_(sign, slope)
                grads[..., shift:].addcmul_(sign, slope, value=-1)
        return result.reshape(features.shape), None


def _blocks(flat: Tensor) -> list[tuple[slice, slice]]:
    """Returns the samples and channels to compute at once: all on an accelerator, what fits the cache on a CPU."""
    batch, channels, num_cells = flat.shape
    if flat.device.type != "cpu":
        return [(slice(None), slice(None))]
    size = max(1, _CACHE_BYTES // (num_cells * flat.element_size()))
    return [(slice(i, i + 1), slice(c, c + size)) for i in range(batch) for c in range(0, channels, size)]


def pairwise_affinity(
    features: Float[Tensor, "*batch C h w"], *, radius: int = 5
) -> Float[Tensor, "*batch num_offsets h w"]:
    """Computes the affinity of every pair of cells closer than `radius`.

        W[k, y, x] = exp( -(1/C) sum_c |f[c, y, x] - f[c, y + dy_k, x + dx_k]| ),    0 outside the grid

    The paper writes the sum over channels; like its released code this takes the mean (the sum with a temperature):
    with hundreds of channels the sum saturates at W = 0 and the gradient vanishes. Differentiable; memory is that of
    the features and the result, not of their differences.

    Args:
        features: f, any number of leading batch dimensions. Half precision is computed and returned in float32, since
            W^beta magnifies rounding.
        radius: the paper's gamma in cells.

    Returns:
        Values in (0, 1], pairs in the order of `pair_offsets(radius)`.

    Raises:
        ValueError: the radius is below 1, or there are no channels.

    Source: AffinityNet §3.2, eq. 3.
    """
    pair_offsets(radius)
    *batch, channels, height, width = features.shape
    if channels == 0:
        raise ValueError("expected features of at least one channel, got none")
    if features.dtype in (torch.float16, torch.bfloat16):
        features = features.float()
    affinity: Tensor = _PairwiseAffinity.apply(features.reshape(math.prod(batch), channels, height, width), radius)
    return affinity.reshape(*batch, *affinity.shape[1:])


def within_radius(affinity: Float[Tensor, "num_offsets h w"], *, radius: int) -> Float[Tensor, "num_fewer _h _w"]:
    """Returns the pairs of a smaller radius, as if they had been computed for it alone.

    Args:
        affinity: pairs in the order of `pair_offsets` of any radius up to 16.
        radius: at most that one.

    Raises:
        ValueError: the radius is larger than that of the pairs.
    """
    full = next((size for size in range(1, 17) if len(pair_offsets(size)) == len(affinity)), 0)
    if radius > full:
        raise ValueError(f"affinities of {len(affinity)} offsets have the radius {full}, and {radius} was asked for")
    kept = (pair_offsets(full) ** 2).sum(axis=1) < radius**2
    return affinity[torch.from_numpy(np.flatnonzero(kept)).to(affinity.device)]


def rgb_affinity(
    image: Float[Tensor, "*batch 3 h w"], *, scale: float | int = 5.0, radius: int = 5
) -> Float[Tensor, "*batch num_offsets h w"]:
    """Computes the affinity of plain colours, W = exp(-scale * mean_RGB |I_i - I_j|), a baseline without learning.

    Args:
        image: RGB in [0, 1], pooled to the feature grid.
        scale: inverse temperature; larger values cut at weaker edges, and doubling it equals doubling the walk's beta.
        radius: as in `pairwise_affinity`.

    Returns:
        As `pairwise_affinity`.
    """
    return pairwise_affinity(image * scale, radius=radius)


def affinity_labels(label: UInt8[Tensor, "*batch h w"], *, radius: int = 5) -> tuple[PairMask, PairMask, PairMask]:
    """Labels the pairs that should have affinity 1 or 0 according to a trimap.

    Pairs of equal cells are positive, separately for background and objects; pairs of cells of different classes are
    negative. A pair with an ignored cell (255) or a cell outside the grid is neither.

    Args:
        label: class ids, 0 background, 255 ignore.
        radius: the paper's gamma in cells.

    Returns:
        `bg_pos`, `fg_pos` and `neg`, each with its pairs in the order of `pair_offsets(radius)`.

    Raises:
        ValueError: the radius is below 1.

    Source: AffinityNet §3.3, eq. 4.
    """
    *batch, height, width = label.shape
    flat = label.flatten(-2)
    shape = (*batch, len(pair_offsets(radius)), height * width)
    bg_pos, fg_pos, neg = (torch.zeros(shape, dtype=torch.bool, device=label.device) for _ in range(3))
    inside = inside_grid(height, width, radius, label.device)
    for k, shift, _ in grid_pairs(height, width, radius):
        num_starts = height * width - shift
        start, end = flat[..., :num_starts], flat[..., shift:]
        known = (start != IGNORE) & (end != IGNORE) & inside[k, :num_starts]
        same = (start == end) & known
        bg_pos[..., k, :num_starts] = same & (start == BACKGROUND)
        fg_pos[..., k, :num_starts] = same & (start != BACKGROUND)
        neg[..., k, :num_starts] = known & ~same
    shape = (*shape[:-1], height, width)
    return bg_pos.reshape(shape), fg_pos.reshape(shape), neg.reshape(shape)
