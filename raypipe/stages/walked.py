"""What the walks of an image gave, and the columns that the taken one becomes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import encode_scores
from raypipe.networks.cuda import to_device
from raypipe.ops.floods import covered_border
from raypipe.ops.predicted_iou import predicted_iou
from raypipe.ops.random_walk import check_walked
from raypipe.ops.separation import separation
from raypipe.ops.walk_choice import walk_objectives
from raypipe.schema import MASKS, columns
from raypipe.stages.base import Row
from raypipe.stages.cells import Cells, cell_colours

SCORES = pa.schema(
    [
        *(pa.field("scores", pa.binary()), pa.field("grid_height", pa.int32()), pa.field("grid_width", pa.int32())),
        *columns(MASKS, "predicted_iou", "walk_alpha", "walk_steps"),
    ]
)
"""Columns of scores on the grid, which `RefineMasks` makes masks of."""

_EPS = 1e-12


@dataclass
class PooledImage:
    """The walk's input (A + K, h, w) of an image; pixels are None where no label asks for a walk."""

    scores: Tensor
    alphas: Sequence[float]
    """Of the A backgrounds."""
    pixels: NDArray[np.uint8] | None
    skill: float | None
    """What the classifier knows of the image's classes; None where nobody knows."""
    is_partial: bool = False
    """Of some cells nothing is known: without a walk they have no score at all."""


@dataclass
class WalkedImage:
    """An image's walks."""

    maps: Tensor
    """Scores (T, A + K, h, w) after T numbers of steps: A backgrounds, then the classes."""
    alphas: Sequence[float]
    """Of the A backgrounds."""
    steps: Sequence[int]
    cells: Cells

    def objectives(self, pixels: NDArray[np.uint8]) -> Tensor:
        """Computes what each walk's mask parts of the image (H, W, 3), (T, A)."""
        features = self.cells.features
        colours = to_device(cell_colours(pixels), features.device)
        return walk_objectives(self.maps, num_backgrounds=len(self.alphas), features=features, colours=colours)

    def taken(self, step: int, alpha: int) -> "TakenWalk":
        """One of the walks, by its indices."""
        maps = self.maps[step]
        scores = torch.cat([maps[alpha, None], maps[len(self.alphas) :]])
        return TakenWalk(scores, self.alphas[alpha], self.steps[step])


class TakenWalk(NamedTuple):
    """The walk that an image's mask is made with."""

    scores: Tensor
    """(1 + K, h, w)."""
    alpha: float
    num_steps: int


def compared(prepared: Sequence[PooledImage], walked: Sequence[WalkedImage | None]) -> list[NDArray[np.float32] | None]:
    """Objectives (T, A) of each image's walks.

    None where no masks can be compared: without labels, and where nothing is known of some cells.

    Args:
        prepared: the images.
        walked: their walks, with the same steps and, where they are compared, as many alphas.
    """
    objectives = [
        None if walk is None or image.pixels is None or image.is_partial else walk.objectives(image.pixels)
        for image, walk in zip(prepared, walked, strict=True)
    ]
    known = [each for each in objectives if each is not None]
    found = iter(torch.stack(known).cpu().numpy() if known else ())  # together, so that a device is waited for once
    return [None if each is None else next(found) for each in objectives]


def encode_walks(
    prepared: Sequence[PooledImage], walked: Sequence[WalkedImage | None], taken: Sequence[TakenWalk | None]
) -> list[Row]:
    """Encodes walked scores as columns, with the predicted IoU of the mask that they make.

    Args:
        prepared: the images.
        walked: their walks; an image without labels is background, whose mask is surely right.
        taken: the one of each image's walks that its mask is made with.

    Raises:
        ValueError: walked scores aren't finite, whether they are taken or not.
    """
    check_walked([image.maps for image in walked if image is not None])
    cues = [
        torch.stack(mask_cues(walk.scores, image.cells.features))
        for image, walk in zip(walked, taken, strict=True)
        if image is not None and walk is not None
    ]
    found = iter(torch.stack(cues).tolist() if cues else ())  # together, so that a device is waited for once
    rows = []
    for image, walk in zip(prepared, taken, strict=True):
        if walk is None:
            rows.append(encode_grid(image.scores.numpy(), iou=1.0))
        else:
            margin, parted, border = next(found)
            cued = {"margin": margin, "separation": parted, "border": border}
            iou = predicted_iou(**cued, num_classes=len(walk.scores) - 1, skill=image.skill)
            scores = walk.scores.cpu().numpy()
            rows.append(encode_grid(scores, iou=iou, alpha=walk.alpha, num_steps=walk.num_steps))
    return rows


def mask_cues(scores: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What `predicted_iou` looks at: the mask's mean margin, its separation, the share of the border that it covers.

    Args:
        scores: walked, (1 + K, h, w).
        features: (D, h, w), of the cells.
    """
    labels = scores.argmax(dim=0, keepdim=True).to(torch.uint8)
    best = (scores / scores.sum(dim=0).clamp(min=_EPS)).topk(2, dim=0).values
    parted = separation(features, labels, num_labels=len(scores))[0]
    return (best[0] - best[1]).mean(), parted, covered_border(labels)[0]


def encode_grid(
    scores: NDArray[np.float32], *, iou: float | None = None, alpha: float | None = None, num_steps: int | None = None
) -> Row:
    """Returns the columns `SCORES` of an image's scores (1 + K, h, w).

    Args:
        scores: of the background and the classes.
        iou: predicted IoU of the mask that they make; None where they aren't walked.
        alpha: the background's exponent; None where nothing was walked.
        num_steps: of the walk, likewise.
    """
    _, height, width = scores.shape
    row = {"scores": encode_scores(scores), "grid_height": height, "grid_width": width}
    return row | {"predicted_iou": iou, "walk_alpha": alpha, "walk_steps": num_steps}
