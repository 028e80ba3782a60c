"""Class activation maps: merges passes, normalises, adds the background's map, and moves maps between grids.

Conventions. Coordinates are continuous with cell (i, j) of a grid of stride s covering pixels [s i, s i + s) x [s j, s
j + s), so its centre lies at s (i + 1/2): this is `align_corners=False` throughout. Values beyond the outermost centres
repeat the border. Maps hold only the K classes that are present; the background, if it is part of a stack, comes first.

Source: AffinityNet, https://arxiv.org/abs/1803.10464, §3.1, eq. 1-2.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.schema import GRID_STRIDE


def resize_cam(cam: Float[Tensor, "*batch h w"], *, size: tuple[int, int]) -> Float[Tensor, "*batch H W"]:
    """Resizes maps bilinearly, align_corners=False.

    Args:
        cam: maps with any number of leading dimensions.
        size: (H, W) of the result.

    Returns:
        Resized maps.
    """
    *batch, height, width = cam.shape
    if cam.numel() == 0:
        return cam.new_empty(*batch, *size)
    resized = F.interpolate(cam.reshape(1, -1, height, width), size=size, mode="bilinear", align_corners=False)
    return resized.reshape(*batch, *size)


class Pass(NamedTuple):
    """What one pass of a network over an image gave."""

    maps: Float[Tensor, "K h w"]
    scaled_size: tuple[int, int]
    """(height, width) of the resized image before padding."""
    mirrored: bool = False
    """The network saw the mirror image."""


def merge_cams(
    passes: Sequence[Pass], *, image_size: tuple[int, int], stride: int = 8, out_stride: int = 4
) -> Float[Tensor, "K out_h out_w"]:
    """Adds up the maps of several passes over one image, each at its own scale and perhaps mirrored.

        M_c(p) = sum_passes M_c^pass(position of p in the pass)

    The network saw the image resized to the pass's scaled size, then zero padded at the right and bottom to multiples
    of 8, then perhaps mirrored, padding included. Each pass is sampled bilinearly at the place of each output cell's
    centre in that geometry, so padding never shifts a map.

    Args:
        passes: maps of the K classes present; each pass may have its own grid.
        image_size: (H, W) of the image.
        stride: pixels of the padded input per cell of a pass.
        out_stride: pixels of the image per cell of the result; 1 gives full resolution.

    Returns:
        Maps on a grid of (ceil(H / out_stride), ceil(W / out_stride)) cells.

    Raises:
        ValueError: no passes, or a grid doesn't fit its padded input.
    """
    if not passes:
        raise ValueError("expected at least one pass over the image, got none")
    merged = passes[0].maps.new_zeros(len(passes[0].maps), *(-(-side // out_stride) for side in image_size))
    for cam, scaled_size, mirrored in passes:
        padded = [-(-side // GRID_STRIDE) * GRID_STRIDE for side in scaled_size]
        expected = tuple(-(-side // stride) for side in padded)
        if cam.shape[-2:] != expected:
            raise ValueError(
                f"a pass of scaled size {scaled_size} has a grid of {tuple(cam.shape[-2:])} cells; "
                f"padded to multiples of {GRID_STRIDE}, at stride {stride}, it should be {expected}"
            )
        rows, columns = (
            _centres(image_side, out_stride, device=cam.device) * (scaled_side / image_side)
            for image_side, scaled_side in zip(image_size, scaled_size, strict=True)
        )
        if mirrored:
            columns = padded[1] - columns
        sampled = _sample(_sample(cam, rows / stride - 0.5, dim=-2), columns / stride - 0.5, dim=-1)
        merged = merged + sampled
    return merged


def _centres(side: int, stride: int, *, device: torch.device) -> Float[Tensor, " cells"]:
    """Returns the pixel coordinates of the centres of the cells that cover a side."""
    return (torch.arange(-(-side // stride), device=device, dtype=torch.float32) + 0.5) * stride


def _sample(maps: Float[Tensor, "*batch h w"], position: Float[Tensor, " cells"], *, dim: int) -> Tensor:
    """Interpolates linearly along one dimension at fractional cell indices, repeating the border."""
    position = position.clamp(0, maps.shape[dim] - 1)
    lower = position.floor()
    upper = (lower + 1).clamp(max=maps.shape[dim] - 1)
    weight = (position - lower).to(maps.dtype)
    if dim == -2:
        weight = weight.unsqueeze(-1)
    return torch.lerp(maps.index_select(dim, lower.long()), maps.index_select(dim, upper.long()), weight)


def sample_cam(
    cam: Float[Tensor, "*batch h w"], *, size: tuple[int, int], stride: float | int
) -> Float[Tensor, "*batch H W"]:
    """Samples maps bilinearly at the centres of pixels.

    The grid covers ceil(H / stride) cells, which may be more than the image: nothing is stretched, unlike in
    `resize_cam`.

    Args:
        cam: maps with any number of leading dimensions.
        size: (H, W) of the result, in pixels of the image or of the reduced one.
        stride: such pixels per cell; below 1, a pixel has several cells and takes those at its centre.

    Returns:
        Maps of the image's size.
    """
    if cam.numel() == 0:
        return cam.new_empty(*cam.shape[:-2], *size)
    rows, columns = (_centres(side, 1, device=cam.device) / stride - 0.5 for side in size)
    return _sample(_sample(cam, rows, dim=-2), columns, dim=-1)


def normalize_cams(cams: Float[Tensor, "K h w"], *, eps: float = 1e-5) -> Float[Tensor, "K h w"]:
    """M_c <- M_c / (max_p M_c(p) + eps): each class reaches S / (S + eps) at its own maximum S.

    Args:
        cams: non-negative maps of the classes present.
        eps: keeps a map of zeros at zero.

    Returns:
        Maps in [0, 1).

    Source: AffinityNet §3.1, eq. 1.
    """
    if cams.numel() == 0:
        return cams
    return cams / (cams.amax(dim=(-2, -1), keepdim=True) + eps)


def background_score(cams: Float[Tensor, "K h w"], *, alpha: float | int) -> Float[Tensor, "h w"]:
    """M_bg(p) = (1 - max_c M_c(p))^alpha.

    Compute it before any pooling: (1 - max M)^alpha and averaging do not commute.

    Where no class is known there is no evidence of background either: 0. Where some are, it is what they leave.

    Args:
        cams: normalised maps in [0, 1], NaN where unknown; without any class the background is 1 everywhere.
        alpha: > 0; a larger value leaves less background, the paper uses 4 (cautious about objects), 16 and 24 to 32
            (generous).

    Returns:
        The background's map in [0, 1].

    Raises:
        ValueError: alpha isn't positive.

    Source: AffinityNet §3.1, eq. 2.
    """
    if not alpha > 0:
        raise ValueError(f"expected a positive alpha (the paper uses 4, 16 and 24), got {alpha}")
    if cams.shape[0] == 0:
        return cams.new_ones(cams.shape[1:])
    unknown = cams.isnan()
    background = (1 - cams.masked_fill(unknown, 0).amax(dim=0)).clamp(min=0) ** alpha
    return background.masked_fill(unknown.all(dim=0), 0)


def stack_background(cams: Float[Tensor, "K h w"], *, alpha: float | int) -> Float[Tensor, "K+1 h w"]:
    """Puts the background's map before those of the classes present; what is unknown is evidence of nothing: 0.

    Args:
        cams: normalised maps in [0, 1], NaN where unknown.
        alpha: as in `background_score`.

    Returns:
        Channel 0 is the background, channel k the k-th class present.

    Raises:
        ValueError: alpha isn't positive.
    """
    return torch.cat([background_score(cams, alpha=alpha).unsqueeze(0), cams.masked_fill(cams.isnan(), 0)])


def pool_to_grid(
    scores: Float[Tensor, "*batch H W"], *, stride: int, count_padding: bool = False
) -> Float[Tensor, "*batch h w"]:
    """Averages over the stride x stride pixels of each grid cell.

    Args:
        scores: maps with any number of leading dimensions.
        stride: side of a cell in pixels (or cells) of `scores`.
        count_padding: include the zeros that fill up cells at the right and bottom in the average, as the authors'
            released code does, instead of averaging the real pixels only.

    Returns:
        Maps on a grid of (ceil(H / stride), ceil(W / stride)) cells.
    """
    *batch, height, width = scores.shape
    grid = (-(-height // stride), -(-width // stride))
    if scores.numel() == 0:
        return scores.new_empty(*batch, *grid)
    padding = (0, grid[1] * stride - width, 0, grid[0] * stride - height)
    pooled = F.avg_pool2d(F.pad(scores.reshape(1, -1, height, width), padding), stride)
    if not count_padding:
        pooled = pooled / F.avg_pool2d(F.pad(scores.new_ones(1, 1, height, width), padding), stride)
    return pooled.reshape(*batch, *grid)


def upsample_to_image(
    maps: Float[Tensor, "*batch h w"], *, size: tuple[int, int], stride: int = 8
) -> Float[Tensor, "*batch H W"]:
    """Upsamples a grid bilinearly by its stride, then crops it to the image.

    Args:
        maps: maps on the grid of (ceil(H / stride), ceil(W / stride)) cells.
        size: (H, W) of the image.
        stride: pixels per cell.

    Returns:
        Maps of the image's size.

    Raises:
        ValueError: the grid isn't that of the image.
    """
    height, width = maps.shape[-2:]
    expected = tuple(-(-side // stride) for side in size)
    if (height, width) != expected:
        raise ValueError(
            f"the grid has {(height, width)} cells; an image of {size} pixels at stride {stride} has {expected}"
        )
    return resize_cam(maps, size=(height * stride, width * stride))[..., : size[0], : size[1]]
