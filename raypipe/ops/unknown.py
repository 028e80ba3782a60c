"""Maps that aren't known everywhere: NaN says that nobody has looked, where 0 says that a class isn't there.

Values are averaged over known places only (normalised convolution, Knutsson and Westin, CVPR 1993): a map v that is
known where m = 1 becomes (a * (m v)) / (a * m), with the same weights a as a map that is known throughout.

Conventions. A grid of (h, w) cells covers the whole image (H, W): cell (i, j) is the pixels [i H/h, (i+1) H/h) x
[j W/w, (j+1) W/w), whatever h and w are, so its centre lies at ((i + 1/2) H/h, (j + 1/2) W/w): align_corners=False.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from raypipe.ops.cam import sample_cam

_HALF = 0.5


def known(maps: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Returns where maps aren't NaN."""
    return ~maps.isnan()


def has_blind_cells(maps: Float[Tensor, "K h w"]) -> bool:
    """Returns whether there are cells of which nothing is known, of no class. Waits for the maps' device."""
    return len(maps) > 0 and bool(maps.isnan().all(dim=0).any())


def evidence(maps: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Returns maps with 0 where they are unknown: what nobody has looked at speaks for no class.

    A walk T^t is linear, so where all classes are unknown at the same cells, dividing by T^t m, as normalised
    convolution would, changes neither which class is best at a cell nor the scores' shares. Where they are unknown at
    different cells it would: of a class that is known at one stroke alone, every cell's weighted mean is that stroke's
    1. So zeros are what the walk starts from.
    """
    return maps.masked_fill(maps.isnan(), 0)


def sample_known(maps: Float[Tensor, "K h w"], *, size: tuple[int, int], stride: float | int) -> Float[Tensor, "K H W"]:
    """Samples maps as `ops.cam.sample_cam` does; NaN where less than half of what is looked at is known.

    Args:
        maps: NaN where unknown.
        size: as of `sample_cam`.
        stride: as of `sample_cam`.
    """
    weight = sample_cam(known(maps).to(maps.dtype), size=size, stride=stride)
    mean = sample_cam(evidence(maps), size=size, stride=stride) / weight
    return mean.masked_fill(weight < _HALF, torch.nan)


def fit_to_grid(maps: Float[Tensor, "K h w"], *, size: tuple[int, int], stride: int) -> Float[Tensor, "K out_h out_w"]:
    """Brings maps on any grid onto the image's grid of cells of `stride` pixels.

    Where the maps' cells are smaller than the grid's, a cell gets the mean over its area, so that a stroke of one pixel
    isn't missed; where they are larger, the bilinear interpolant at its centre, with the border repeated. A cell is
    known where a part of it is.

    Args:
        maps: on a grid that covers the whole image; NaN where unknown.
        size: (H, W) of the image.
        stride: pixels a cell of the result; the last cells end with the image.

    Returns:
        Maps on the grid of (ceil(H / stride), ceil(W / stride)) cells, within the range of the given ones.
    """
    axes = list(zip(maps.shape[-2:], size, strict=True))
    over = [_overlaps(cells, side, stride).to(maps) for cells, side in axes]
    weights = [
        overlap if side <= cells * stride else _between(cells, side, stride).to(maps)
        for (cells, side), overlap in zip(axes, over, strict=True)
    ]
    there = known(maps).to(maps.dtype)
    values, weight = (_apply(weights, each) for each in (evidence(maps), there))
    return (values / weight).masked_fill(_apply(over, there) == 0, torch.nan)


def _apply(weights: list[Tensor], maps: Tensor) -> Tensor:
    rows, columns = weights
    return rows @ maps @ columns.T


def _overlaps(cells: int, side: int, stride: int) -> Tensor:
    """Pixels that each cell of the grid shares with each of the maps' cells, (out, cells)."""
    begins = torch.arange(0, side, stride, dtype=torch.float64)
    edges = torch.arange(cells + 1, dtype=torch.float64) * (side / cells)
    ends = (begins + stride).clamp(max=side)
    shared = torch.minimum(ends[:, None], edges[1:]) - torch.maximum(begins[:, None], edges[:-1])
    return shared.masked_fill(shared < side * 1e-9, 0)  # of edges that only rounding parts


def _between(cells: int, side: int, stride: int) -> Tensor:
    """Weights of the maps' cells at the centre of each cell of the grid, (out, cells)."""
    centres = torch.arange(0, side, stride, dtype=torch.float64) + stride / 2
    position = (centres * (cells / side) - 0.5).clamp(0, cells - 1)
    distance = (position[:, None] - torch.arange(cells, dtype=torch.float64)).abs()
    return (1 - distance).clamp(min=0)
