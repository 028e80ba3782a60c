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
from raypipe.networks.cuda import to_device
from raypipe.networks.precision import autocasting
from raypipe.ops.affinity import rgb_affinity
from raypipe.ops.cam import pool_to_grid, stack_background
from raypipe.ops.predicted_iou import predicted_iou
from raypipe.ops.random_walk import check_walked, propagate_batch
from raypipe.ops.separation import separation
from raypipe.ops.unknown import has_blind_cells
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, Prepared, in_passes
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_affinity_net

SCORES = pa.schema(
    {"scores": pa.binary(), "grid_height": pa.int32(), "grid_width": pa.int32(), "predicted_iou": pa.float32()}
)
"""Columns of scores on the grid, which `RefineMasks` makes masks of."""

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
    skill: float | None
    """What the classifier knows of the image's classes; None where nobody knows."""
    is_partial: bool = False
    """Of some cells nothing is known: without a walk they have no score at all."""


@dataclass(kw_only=True)
class WalkStage(JointStage[Prepared]):
    """A stage that walks along the affinities of an image's cells."""

    affinity: Artifact | None
    """The AffinityNet's checkpoint; None walks along plain colours."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision

    def setup(self, device: str) -> None:
        """Loads the AffinityNet, if there is one."""
        self.source = affinity_source(
            self.affinity, precision=self.precision, device=device, pixels_per_pass=self.pixels_per_pass
        )


@dataclass(kw_only=True)
class PropagateCams(WalkStage[PooledImage]):
    """Walked scores (1 + K, grid_height, grid_width) of background and labelled classes."""

    alpha: float
    beta: float
    num_steps: int
    radius: int
    """Reach of a step in cells."""
    count_padding: bool
    cam_stride: int
    """Pixels a cell of the maps that come in."""
    skills: tuple[float, ...] | None = None
    """What the classifier knows of each class, for the predicted IoU; None where nobody knows."""

    reads = ("image", "class_ids", "cam", "cam_height", "cam_width")
    writes = SCORES

    def prepare(self, row: Row) -> PooledImage:
        """Pools the maps; an image without labels is background and needs no walk."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        scores = grid_scores(cam, alpha=self.alpha, count_padding=self.count_padding, cam_stride=self.cam_stride)
        pixels = pixels_of(row, max_side=self.max_side) if len(cam) else None
        skill = self._skill(row["class_ids"])
        return PooledImage(scores, pixels, skill, is_partial=has_blind_cells(cam))

    def _skill(self, class_ids: Sequence[int]) -> float | None:
        """The mean over an image's classes."""
        if self.skills is None or not class_ids:
            return None
        return float(np.mean([self.skills[class_id - 1] for class_id in class_ids]))

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
        starts = [
            to_device(image.scores, affinity.device) for image, affinity in zip(labelled, affinities, strict=True)
        ]
        scores = propagate_batch(starts, affinities, beta=self.beta, num_steps=self.num_steps, tol=WALK_TOLERANCE)
        heard = [
            without_noise(walked) if image.is_partial else walked
            for image, walked in zip(labelled, scores, strict=True)
        ]
        walks = map(WalkedImage, starts, heard, cells)
        return [None if image.pixels is None else next(walks) for image in prepared]


def without_noise(scores: Tensor) -> Tensor:
    """Walked scores with 0 below the walk's tolerance.

    Maps that are known everywhere leave no cell without a score. Far from all that is known, the scores of a walk from
    a few strokes are smaller than its error, which must not choose a class.
    """
    return scores.masked_fill(scores < WALK_TOLERANCE, 0)


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
    cues = [
        torch.stack(_cues(scores, image.cells.features))
        for image, scores in zip(walked, chosen, strict=True)
        if image is not None and scores is not None
    ]
    found = iter(torch.stack(cues).tolist() if cues else ())  # together, so that a device is waited for once
    rows = []
    for image, scores in zip(prepared, chosen, strict=True):
        if scores is None:
            rows.append(encode_grid(image.scores.numpy(), 1.0))
        else:
            margin, parted = next(found)
            iou = predicted_iou(margin=margin, separation=parted, num_classes=len(scores) - 1, skill=image.skill)
            rows.append(encode_grid(scores.cpu().numpy(), iou))
    return rows


def _cues(scores: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    labels = scores.argmax(dim=0, keepdim=True).to(torch.uint8)
    best = (scores / scores.sum(dim=0).clamp(min=_EPS)).topk(2, dim=0).values
    return (best[0] - best[1]).mean(), separation(features, labels, num_labels=len(scores))[0]


def encode_grid(scores: NDArray[np.float32], iou: float | None) -> Row:
    """Returns the columns `SCORES` of an image's scores (1 + K, h, w) and the predicted IoU of its mask."""
    _, height, width = scores.shape
    return {"scores": encode_scores(scores), "grid_height": height, "grid_width": width, "predicted_iou": iou}
