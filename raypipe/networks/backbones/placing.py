"""Places maps on the grid: reads each one where the grid's cells are, wherever the map's own cells look.

Cell j of a map of stride s looks at the pixel s j + c, c being its centre; cell i of the grid of output stride S stands
for the pixels [S i, S (i + 1)), whose centre is S i + (S - 1) / 2. So cell i reads the map at

    t_i = (S i + (S - 1) / 2 - c) / s

by bilinear interpolation, over a triangle of half width max(1, S / s), which also averages finer maps down.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

TOLERANCE = 0.51
"""Pixels that a map of the grid's own stride may be off without being resampled, which would blur it."""


def place(
    x: Float[Tensor, "B C n m"], grid: tuple[int, int], *, stride: int, centre: float, output_stride: int
) -> Float[Tensor, "B C h w"]:
    """Return a map's values at the cells of the grid.

    Args:
        x: the map.
        grid: the height and width of the result.
        stride: pixels per cell of the map.
        centre: the pixel that the map's cell 0 looks at.
        output_stride: pixels per cell of the grid.

    Cells beyond the map's edge repeat it.
    """
    first = ((output_stride - 1) / 2 - centre) / stride
    rows, columns = x.shape[-2:]
    if stride == output_stride and first > -0.5 and abs(first - round(first)) * stride <= TOLERANCE:
        # Negative padding crops into a new tensor; torch.export would take a view's strides for a condition on sizes.
        offset = round(first)
        return F.pad(x, (-offset, grid[1] + offset - columns, -offset, grid[0] + offset - rows))
    step = output_stride / stride
    x = x @ _weights(x, columns, grid[1], first, step).mT
    # Products with the transposed map rather than from the left: of one matrix with all channels' columns at once.
    return (x.mT @ _weights(x, rows, grid[0], first, step).mT).mT


def _weights(x: Tensor, size: int, cells: int, first: float, step: float) -> Float[Tensor, "cells size"]:
    at = (first + step * torch.arange(cells, device=x.device, dtype=torch.float32)).clamp(0, size - 1)
    distance = (at[:, None] - torch.arange(size, device=x.device, dtype=torch.float32)).abs()
    weights = (1 - distance / max(1.0, step)).clamp(min=0)
    return (weights / weights.sum(dim=1, keepdim=True)).to(x.dtype)
