"""The cells of an image's grid: their features and colours, and what pairs them."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.networks import network_input
from raypipe.networks.precision import autocasting
from raypipe.ops.affinity import rgb_affinity
from raypipe.ops.cam import pool_to_grid
from raypipe.schema import GRID_STRIDE
from raypipe.stages.batching import in_passes
from raypipe.stages.networks import load_affinity_net


class Cells(NamedTuple):
    """Features of the cells of an image's grid, (h, w) = (ceil(H/8), ceil(W/8)), and the function that pairs them."""

    features: Tensor
    """(D, h, w)."""
    pair: Callable[..., Tensor]
    """From features and a `radius` to affinities (num_offsets, h, w)."""

    def affinity(self, *, radius: int) -> Tensor:
        """Affinities (num_offsets, h, w) of cells closer than `radius`, the paper's gamma."""
        return self.pair(self.features, radius=radius)


AffinitySource = Callable[[Sequence[NDArray[np.uint8]]], list[Cells]]
"""Pixels (H, W, 3) of images to their cells."""


class NetworkAffinity:
    """Affinities of a network's features."""

    def __init__(self, checkpoint: str, *, precision: Precision, device: str, pixels_per_pass: int | None) -> None:
        self.network = load_affinity_net(checkpoint, device=device, precision=precision)
        self.device = torch.device(device)
        self.precision = precision
        self.pixels_per_pass = pixels_per_pass

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Cells]:
        """One forward pass an image, or one of several images of equal size."""
        preprocessing = self.network.preprocessing
        inputs = [network_input(pixels, preprocessing=preprocessing, device=self.device)[0] for pixels in images]
        network = autocasting(self.network, self.device, self.precision)
        passed = in_passes(network, inputs, pixels_per_pass=self.pixels_per_pass)
        return [Cells(maps[0], self.network.pair) for maps in passed]


def cell_colours(pixels: NDArray[np.uint8]) -> Tensor:
    """Mean colours (3, h, w) in [0, 1] of the cells of an image (H, W, 3)."""
    return pool_to_grid(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, stride=GRID_STRIDE)


def affinity_source(
    affinity: Artifact | None, *, precision: Precision, device: str, pixels_per_pass: int | None = None
) -> AffinitySource:
    """Returns the affinities of a checkpoint's features, or where there is none of the cells' mean colours.

    Args:
        affinity: an AffinityNet's checkpoint, or that of a frozen backbone; None takes colours.
        precision: of the network.
        device: where it goes to, as torch names it.
        pixels_per_pass: see `JointStage`.
    """
    if affinity is None:
        return lambda images: [Cells(cell_colours(pixels), rgb_affinity) for pixels in images]
    return NetworkAffinity(affinity.uri, precision=precision, device=device, pixels_per_pass=pixels_per_pass)
