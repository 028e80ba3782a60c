"""Spreads class activation maps along affinities by a random walk (AffinityNet §3.4)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.data.arrays import decode_cam, encode_scores
from raypipe.networks import network_input
from raypipe.networks.precision import autocast
from raypipe.ops.affinity import pairwise_affinity, rgb_affinity
from raypipe.ops.cam import pool_to_grid, stack_background
from raypipe.ops.predicted_iou import predicted_iou
from raypipe.ops.random_walk import check_walked, propagate_batch
from raypipe.ops.separation import separation
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_affinity_net

WALK_TOLERANCE = 1e-5
"""Largest error of a walked score that the expansion may leave."""

_EPS = 1e-12


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


class LearnedAffinity:
    """Affinities of AffinityNet's features."""

    def __init__(
        self,
        *,
        checkpoint: str,
        precision: Precision,
        device: str,
        pixels_per_pass: int | None = None,
    ) -> None:
        self.network, _ = load_affinity_net(checkpoint, device=device)
        self.device = torch.device(device)
        self.precision = precision
        self.pixels_per_pass = pixels_per_pass

    @torch.inference_mode()
    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Cells]:
        """One forward pass an image, or one of several images of equal size."""
        preprocessing = self.network.preprocessing
        inputs = [network_input(pixels, preprocessing=preprocessing, device=self.device)[0] for pixels in images]
        passed = in_passes(self._features, inputs, pixels_per_pass=self.pixels_per_pass)
        features = [maps[0].float() for maps in passed]
        return [Cells(maps, pairwise_affinity) for maps in features]

    def _features(self, x: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            features: Tensor = self.network(x)
        return features


class RgbAffinity:
    """The baseline: affinities of the cells' mean colours; nothing is learned."""

    def __call__(self, images: Sequence[NDArray[np.uint8]]) -> list[Cells]:
        """The cells' mean colours and their affinities."""
        return [Cells(cell_colours(pixels), rgb_affinity) for pixels in images]


def cell_colours(pixels: NDArray[np.uint8]) -> Tensor:
    """Mean colours (3, h, w) in [0, 1] of the cells of an image (H, W, 3)."""
    return pool_to_grid(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, stride=GRID_STRIDE)


def affinity_source(
    affinity: Artifact | None, *, precision: Precision, device: str, pixels_per_pass: int | None = None
) -> AffinitySource:
    """Returns the affinities of an AffinityNet's checkpoint, or of plain colours where there is none.

    Args:
        affinity: the checkpoint; None takes colours.
        precision: of the network.
        device: where it goes to, as torch names it.
        pixels_per_pass: see `JointStage`.
    """
    if affinity is None:
        return RgbAffinity()
    return LearnedAffinity(checkpoint=affinity.uri, precision=precision, device=device, pixels_per_pass=pixels_per_pass)


def grid_scores(cam: Tensor, *, alpha: float, count_padding: bool = False, cam_stride: int) -> Tensor:
    """The walk's input: background score and maps on the grid, (1 + K, h, w).

    The background comes before the pooling: (1 - max M)^alpha and averaging don't commute.
    """
    scores = stack_background(cam, alpha=alpha)
    return pool_to_grid(scores, stride=GRID_STRIDE // cam_stride, count_padding=count_padding)


@dataclass
class PooledImage:
    """The walk's input (1 + K, h, w) of an image; pixels are None where no label asks for a walk."""

    scores: Tensor
    pixels: NDArray[np.uint8] | None


@dataclass(kw_only=True)
class PropagateCams(JointStage[PooledImage]):
    """Walked scores (1 + K, grid_height, grid_width) of background and labelled classes."""

    affinity: Artifact | None
    """The AffinityNet's checkpoint; None walks along plain colours."""
    alpha: float
    beta: float
    num_steps: int
    radius: int
    """Reach of a step in cells."""
    count_padding: bool
    cam_stride: int
    """Pixels a cell of the maps that come in."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    reads = ("image", "cam", "cam_height", "cam_width")
    writes = pa.schema(
        [
            pa.field("scores", pa.binary()),
            pa.field("grid_height", pa.int32()),
            pa.field("grid_width", pa.int32()),
            pa.field("predicted_iou", pa.float32()),
        ]
    )

    def setup(self, device: str) -> None:
        """Loads the AffinityNet, if there is one."""
        self.source = affinity_source(
            self.affinity, precision=self.precision, device=device, pixels_per_pass=self.pixels_per_pass
        )

    def prepare(self, row: Row) -> PooledImage:
        """Pools the maps; an image without labels is background and needs no walk."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        scores = grid_scores(cam, alpha=self.alpha, count_padding=self.count_padding, cam_stride=self.cam_stride)
        return PooledImage(scores, pixels_of(row, max_side=self.max_side) if len(cam) else None)

    def compute(self, prepared: Sequence[PooledImage]) -> list[Row]:
        """Walks the images that have labels."""
        walked = self.propagate(prepared)
        return encode_walks(prepared, walked, [None if image is None else image.scores for image in walked])

    @torch.inference_mode()
    def propagate(self, prepared: Sequence[PooledImage]) -> list["WalkedImage | None"]:
        """Returns each image's walk; None for images without labels."""
        labelled = [image for image in prepared if image.pixels is not None]
        cells = self.source([image.pixels for image in labelled if image.pixels is not None])
        affinities = [of_image.affinity(radius=self.radius) for of_image in cells]
        starts = [image.scores.to(affinity.device) for image, affinity in zip(labelled, affinities, strict=True)]
        scores = propagate_batch(starts, affinities, beta=self.beta, num_steps=self.num_steps, tol=WALK_TOLERANCE)
        walks = map(WalkedImage, starts, scores, cells)
        return [None if image.pixels is None else next(walks) for image in prepared]


@dataclass
class WalkedImage:
    """Scores (1 + K, h, w) of an image before and after the walk, and its cells."""

    start: Tensor
    scores: Tensor
    cells: Cells


def encode_walks(
    prepared: Sequence[PooledImage], walked: Sequence[WalkedImage | None], chosen: Sequence[Tensor | None]
) -> list[Row]:
    """Encodes walked scores as columns, with the predicted IoU of the mask that they make.

    Args:
        prepared: the images.
        walked: their walks; an image without labels is background, whose mask is surely right.
        chosen: the scores (1 + K, h, w) of each walk that are kept.

    Raises:
        ValueError: walked scores aren't finite, whether they are kept or not.
    """
    check_walked([image.scores for image in walked if image is not None])
    pairs = [
        (scores, image.cells.features)
        for image, scores in zip(walked, chosen, strict=True)
        if image is not None and scores is not None
    ]
    ious = iter(predict_ious([scores for scores, _ in pairs], [features for _, features in pairs]))
    return [
        _encode(image.scores, 1.0) if scores is None else _encode(scores, next(ious))
        for image, scores in zip(prepared, chosen, strict=True)
    ]


def predict_ious(scores: Sequence[Tensor], features: Sequence[Tensor]) -> list[float]:
    """Predicts the IoU of each image's mask, from its walked scores (1 + K, h, w) and features (D, h, w)."""
    if not scores:
        return []
    cues = torch.stack([torch.stack(_cues(*pair)) for pair in zip(scores, features, strict=True)]).tolist()
    return [
        predicted_iou(margin=margin, separation=parted, num_classes=len(of_image) - 1)
        for (margin, parted), of_image in zip(cues, scores, strict=True)
    ]


def _cues(scores: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    labels = scores.argmax(dim=0, keepdim=True).to(torch.uint8)
    best = (scores / scores.sum(dim=0).clamp(min=_EPS)).topk(2, dim=0).values
    return (best[0] - best[1]).mean(), separation(features, labels, num_labels=len(scores))[0]


def _encode(scores: Tensor, iou: float) -> Row:
    _, height, width = scores.shape
    return {
        "scores": encode_scores(scores.cpu().numpy()),
        "grid_height": height,
        "grid_width": width,
        "predicted_iou": iou,
    }
