"""The walk on an accelerator: one Triton kernel a step, which serves images of any sizes at once.

    x_0 = cam,   x_1 = T x_0,   x_(k+1) = 2 T x_k - x_(k-1),   T^t cam = sum_k c_k(t) x_k,   T = D^-1 W^beta

A cell gathers its neighbours at the offsets of `pair_offsets` and at their opposites, which with itself are
2 * num_offsets + 1 points. The pattern is in these offsets alone, so that no size of a grid needs index arrays, and the
cells' order of summation is fixed: runs give equal bytes, and an image's don't depend on its company. The recurrence
runs on T rather than on the similar S = D^1/2 T D^-1/2 of `raypipe.ops.random_walk`. Since q(T) = D^-1/2 q(S) D^1/2 for
every polynomial q, it computes the same within the same bound. It needs no scaled edges; D is summed anew with each
product, from the edges that the product loads. All is float64, as it is there.

Conventions. Storage is ragged: the maps of all images lie flat one after the other, (K, h, w) each, and so do the
edges, (num_offsets, h, w) each. W is stored as in `raypipe.ops.affinity`.

Steps are launched one by one. A CUDA graph would keep their number of blocks and their buffers, so that each mixture of
sizes needed its own, which costs as much to capture as one walk to launch and seldom comes again. Nothing here waits
for the device: the launches happen while it is still at work on the network's features.

Triton is imported here alone: this module can't be imported without it.
"""

import math
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from typing import no_type_check

import numpy as np
import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

from raypipe.ops.affinity import pair_offsets
from raypipe.ops.transition import edge_weights

TILE = (2, 128)
"""Maps and cells of one program; powers of 2. Results don't depend on them."""


def walk(
    cams: Sequence[Float[Tensor, "_K _h _w"]],
    affinities: Sequence[Float[Tensor, "num_offsets _h _w"]],
    *,
    beta: float | int,
    coefficients: Sequence[Sequence[Float[np.ndarray, " _num_terms"]]],
    radius: int,
) -> list[Float[Tensor, "num_steps _K _h _w"]]:
    """Walks several images, each at several numbers of steps t, by their Chebyshev expansions.

    Values aren't checked, for which the device had to be waited for. Instead NaN tells: an image whose affinity has a
    value outside [0, 1] or NaN is NaN throughout, and a value of `cams` that isn't finite makes some of its map so.

    Args:
        cams: maps of each image, all on one device; at least one image, none without maps or cells.
        affinities: W of each image, on the same device.
        beta: exponent on W, >= 0.
        coefficients: c_0 .. c_d of each image and t.
        radius: the paper's gamma that the affinities were computed with.

    Returns:
        The maps of each image for each t, of its dtype.
    """
    device = cams[0].device
    values = torch.cat([cam.flatten() for cam in cams]).to(torch.float64)
    edges = torch.cat([affinity.flatten() for affinity in affinities]).to(torch.float64)
    weights = torch.where((edges >= 0) & (edges <= 1), edge_weights(edges, beta), math.nan)
    shapes = [(len(cam), cam.shape[1], cam.shape[2]) for cam in cams]
    num_terms = [max(map(len, of_image)) for of_image in coefficients]
    first_value, first_edge, first_map = (
        [0, *accumulate(sizes)]
        for sizes in (
            [cam.numel() for cam in cams],
            [affinity.numel() for affinity in affinities],
            [len(cam) for cam in cams],
        )
    )
    rows = zip(first_value, first_edge, first_map, shapes, num_terms, strict=False)
    images = [number for *firsts, shape, terms in rows for number in (*firsts, *shape, terms)]
    start_of_map = [0, *accumulate(height * width for count, height, width in shapes for _ in range(count))]
    tables = torch.tensor([*images, *start_of_map, *first_edge])
    # From ordinary memory this doesn't wait for the device either: the driver copies the numbers before it returns.
    tables, starts, edge_starts = torch.split(
        tables.to(device, non_blocking=True), [len(images), len(start_of_map), len(first_edge)]
    )
    num_sums = len(coefficients[0])
    padded = np.zeros((len(cams), num_sums, max(num_terms)))
    for image, of_image in enumerate(coefficients):
        for index, terms in enumerate(of_image):
            padded[image, index, : len(terms)] = terms
    arguments = (
        weights,
        _offsets(radius, device),
        tables,
        torch.from_numpy(padded).to(device, non_blocking=True),
        torch.segment_reduce(values, "min", offsets=starts, unsafe=True),
        torch.segment_reduce(values, "max", offsets=starts, unsafe=True),
        0 * torch.segment_reduce(weights, "sum", offsets=edge_starts, unsafe=True),
    )
    sums = values.new_zeros(num_sums, len(values))
    current, previous = values, torch.empty_like(values)
    maps, cells = TILE
    programs = (
        triton.cdiv(max(height * width for _, height, width in shapes), cells),
        len(cams),
        triton.cdiv(max(count for count, _, _ in shapes), maps),
    )
    with torch.cuda.device_of(values):  # type: ignore[no-untyped-call]
        for step in range(max(num_terms)):
            _step[programs](
                *arguments, current, previous, sums, step, padded.shape[2], num_sums, len(values),
                len(pair_offsets(radius)), maps, cells,
            )  # fmt: skip
            current, previous = previous, current
    rounded = {dtype: sums.to(dtype) for dtype in {cam.dtype for cam in cams}}
    return [
        rounded[cam.dtype][:, first : first + cam.numel()].reshape(num_sums, *cam.shape)
        for cam, first in zip(cams, first_value, strict=False)
    ]


@lru_cache(maxsize=16)
def _offsets(radius: int, device: torch.device) -> Tensor:
    return torch.tensor(pair_offsets(radius), dtype=torch.int32).to(device)


# The plain numbers aren't specialized on: one compiled kernel serves every batch, so that all are rounded alike.
@triton.jit(do_not_specialize=["step", "max_terms", "num_sums", "num_values"])
@no_type_check
def _step(
    weights, offsets, images, coefficients, lows, highs, poisons, current, previous, sums,
    step, max_terms, num_sums, num_values, num_offsets: tl.constexpr, maps: tl.constexpr, cells: tl.constexpr,
):  # fmt: skip
    """Adds c_k x_k to the sums and writes x_(k+1) over x_(k-1), for some maps and cells of one image."""
    image = tl.program_id(1)
    row = images + 7 * image
    num_maps = tl.load(row + 3).to(tl.int32)
    height = tl.load(row + 4).to(tl.int32)
    width = tl.load(row + 5).to(tl.int32)
    num_terms = tl.load(row + 6).to(tl.int32)
    num_cells = height * width
    if (step < num_terms) & (tl.program_id(0) * cells < num_cells) & (tl.program_id(2) * maps < num_maps):
        cell = tl.program_id(0) * cells + tl.arange(0, cells)
        index = tl.program_id(2) * maps + tl.arange(0, maps)
        known = index < num_maps
        inside = known[:, None] & (cell < num_cells)[None, :]
        place = tl.load(row) + index[:, None] * num_cells + cell[None, :]
        here = tl.load(current + place, mask=inside, other=0.0)

        # Only the last step knows the sum, whose exact value lies in the map's range. Comparisons with NaN are false.
        last = step + 1 == num_terms
        ends = tl.load(row + 2) + index
        low = tl.load(lows + ends, mask=known & last, other=-float("inf"))[:, None] + tl.load(poisons + image)
        high = tl.load(highs + ends, mask=known & last, other=float("inf"))[:, None]
        total = sums + place
        weight = coefficients + image * num_sums * max_terms + step
        for _ in range(num_sums):
            c = tl.load(weight)
            if (c > 0) | last:
                value = tl.load(total, mask=inside, other=0.0) + c * here
                value = tl.where((value < low) | (low != low), low, value)
                value = tl.where(value > high, high, value)
                tl.store(total, value, mask=inside)
            total += num_values
            weight += max_terms

        if step + 1 < num_terms:
            y = cell // width
            x = cell % width
            near = current + place
            edge = weights + tl.load(row + 1) + cell
            product = here
            degree = tl.full((cells,), 1.0, tl.float64)
            for k in range(num_offsets):
                dy = tl.load(offsets + 2 * k)
                dx = tl.load(offsets + 2 * k + 1)
                shift = dy * width + dx
                ahead = (y < height - dy) & (x >= -dx) & (x < width - dx)
                w = tl.load(edge, mask=ahead, other=0.0)
                degree += w
                product += w[None, :] * tl.load(near + shift, mask=inside & ahead[None, :], other=0.0)
                behind = (cell < num_cells) & (y >= dy) & (x >= dx) & (x < width + dx)
                w = tl.load(edge - shift, mask=behind, other=0.0)
                degree += w
                product += w[None, :] * tl.load(near - shift, mask=inside & behind[None, :], other=0.0)
                edge += num_cells
            product = product / degree[None, :]
            before = tl.load(previous + place, mask=inside & (step > 0), other=0.0)
            tl.store(previous + place, tl.where(step > 0, 2 * product - before, product), mask=inside)
