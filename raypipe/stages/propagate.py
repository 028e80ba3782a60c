"""Spreads class activation maps along affinities by a random walk (AffinityNet §3.4)."""

from collections.abc import Callable
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import decode_cam, encode_scores
from raypipe.data.images import decode_image
from raypipe.networks.precision import autocast
from raypipe.ops.affinity import pairwise_affinity, rgb_affinity
from raypipe.ops.cam import pool_to_grid, stack_background
from raypipe.ops.random_walk import propagate
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row, Stage
from raypipe.stages.networks import load_affinity_net, network_input

AffinitySource = Callable[[NDArray[np.uint8]], Tensor]
"""Pixels (H, W, 3) to affinities (num_offsets, ceil(H/8), ceil(W/8))."""


class LearnedAffinity:
    """Affinities of AffinityNet's features."""

    def __init__(self, *, checkpoint: str, radius: int, precision: Literal["auto", "fp32", "bf16"]) -> None:
        self.network, _, self.device = load_affinity_net(checkpoint)
        self.radius = radius
        self.precision = precision

    @torch.inference_mode()
    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """One forward pass of the whole image."""
        x, _ = network_input(pixels, preprocessing=self.network.preprocessing, device=self.device)
        with autocast(self.device, self.precision):
            features = self.network(x)[0]
        return pairwise_affinity(features.float(), radius=self.radius)


class RgbAffinity:
    """The baseline: affinities of the cells' mean colours; nothing is learned."""

    def __init__(self, *, radius: int) -> None:
        self.radius = radius

    def __call__(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Affinities of the image at the grid's resolution."""
        image = torch.from_numpy(pixels).permute(2, 0, 1).float() / 255
        return rgb_affinity(pool_to_grid(image, stride=GRID_STRIDE), radius=self.radius)


def affinity_source(
    kind: Literal["learned", "rgb"],
    *,
    checkpoint: str | None,
    radius: int,
    precision: Literal["auto", "fp32", "bf16"] = "auto",
) -> AffinitySource:
    """The affinities that a config asks for.

    Raises:
        ValueError: if learned affinities come without a checkpoint.
    """
    if kind == "rgb":
        return RgbAffinity(radius=radius)
    if checkpoint is None:
        raise ValueError("learned affinities need a checkpoint; train one, or set walk.affinity=rgb")
    return LearnedAffinity(checkpoint=checkpoint, radius=radius, precision=precision)


def grid_scores(cam: Tensor, *, alpha: float, count_padding: bool = False, cam_stride: int) -> Tensor:
    """The walk's input: background score and maps on the grid, (1 + K, h, w).

    The background comes before the pooling: (1 - max M)^alpha and averaging don't commute.
    """
    scores = stack_background(cam, alpha=alpha)
    return pool_to_grid(scores, stride=GRID_STRIDE // cam_stride, count_padding=count_padding)


class PropagateCams(Stage):
    """Walked scores (1 + K, grid_height, grid_width) of background and labelled classes."""

    reads = ("image", "cam", "cam_height", "cam_width")
    writes = pa.schema(
        [pa.field("scores", pa.binary()), pa.field("grid_height", pa.int32()), pa.field("grid_width", pa.int32())]
    )
    drops = ("cam",)

    def __init__(
        self,
        *,
        affinity: Literal["learned", "rgb"],
        checkpoint: str | None,
        radius: int,
        alpha: float,
        beta: float,
        num_steps: int,
        tol: float,
        count_padding: bool,
        precision: Literal["auto", "fp32", "bf16"],
        cam_stride: int,
        max_side: int,
    ) -> None:
        self.affinity = affinity_source(affinity, checkpoint=checkpoint, radius=radius, precision=precision)
        self.alpha = alpha
        self.beta = beta
        self.num_steps = num_steps
        self.tol = tol
        self.count_padding = count_padding
        self.cam_stride = cam_stride
        self.max_side = max_side

    @torch.inference_mode()
    def process(self, row: Row) -> Row:
        """Walks one image; one without labels is background and needs no walk."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        scores = grid_scores(cam, alpha=self.alpha, count_padding=self.count_padding, cam_stride=self.cam_stride)
        if len(cam):
            pixels = decode_image(row["image"], max_side=self.max_side).pixels
            affinity = self.affinity(pixels)
            scores = propagate(
                scores.to(affinity.device), affinity, beta=self.beta, num_steps=self.num_steps, tol=self.tol
            )
        _, height, width = scores.shape
        return {"scores": encode_scores(scores.cpu().numpy()), "grid_height": height, "grid_width": width}
