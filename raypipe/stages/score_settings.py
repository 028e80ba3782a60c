"""Scores many settings of the walk in one pass of the networks; maps and features are computed once an image."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import decode_cam
from raypipe.data.truth import as_shown, read_truth
from raypipe.ops.walk_choice import WalkChoice
from raypipe.schema import SETTINGS, columns
from raypipe.stages.base import Row
from raypipe.stages.cells import Cells, cell_colours
from raypipe.stages.decode import pixels_of
from raypipe.stages.propagate import WalkStage
from raypipe.stages.walk_scores import SCORES, SeenImage, Setting, WalkScores


@dataclass
class ScoredImage:
    """An image on its way; pixels are None where no label asks for a walk."""

    class_ids: list[int]
    cam: Tensor
    pixels: NDArray[np.uint8] | None
    truth: NDArray[np.uint8] | None
    """One pixel in `stride` of the working size, in both directions."""


@dataclass(kw_only=True)
class ScoreSettings(WalkStage[ScoredImage]):
    """Scores of an image's masks, one a setting; see `WalkScores`."""

    settings: tuple[Setting, ...]
    stride: Literal[1, 4]
    """Pixels of the working size per counted pixel, in both directions."""
    num_classes: int
    """With background."""
    count_padding: bool
    cam_stride: int
    """Pixels a cell of the maps that come in."""
    choice: WalkChoice
    """See `WalkScores`."""

    reads = (
        *("image", "class_ids", "height", "width", "original_height", "original_width"),
        *("cam", "cam_height", "cam_width", "mask_uri"),
    )
    writes = columns(SETTINGS, *SCORES)

    def prepare(self, row: Row) -> ScoredImage:
        """Decodes image, maps and true mask."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        return ScoredImage(
            class_ids=list(row["class_ids"]),
            cam=cam,
            pixels=pixels_of(row, max_side=self.max_side) if len(cam) else None,
            truth=self._truth(row) if row["mask_uri"] else None,
        )

    def _truth(self, row: Row) -> NDArray[np.uint8]:
        truth, _ = read_truth(row["mask_uri"], num_classes=self.num_classes)
        shown = as_shown(truth, size=(row["original_height"], row["original_width"]), image=lambda: row["image"])
        return sample_truth(shown, size=(row["height"], row["width"]), stride=self.stride)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[ScoredImage]) -> list[Row]:
        """Scores the images; one without labels is background whatever the setting."""
        found = iter(self.source([image.pixels for image in prepared if image.pixels is not None]))
        return [self._score(image, None if image.pixels is None else next(found)) for image in prepared]

    def _score(self, image: ScoredImage, cells: Cells | None) -> Row:
        colours = None if image.pixels is None else cell_colours(image.pixels)
        seen = SeenImage(class_ids=image.class_ids, cam=image.cam, truth=image.truth, cells=cells, colours=colours)
        return self.scores.score(seen)

    @property
    def scores(self) -> WalkScores:
        """What is scored of each image."""
        return WalkScores(
            settings=self.settings,
            stride=self.stride,
            count_padding=self.count_padding,
            cam_stride=self.cam_stride,
            choice=self.choice,
        )


def sample_truth(truth: NDArray[np.uint8], *, size: tuple[int, int], stride: int) -> NDArray[np.uint8]:
    """The true mask (H, W) at the centres of the cells of `stride` pixels that cover an image of another size.

    Args:
        truth: class ids.
        size: (height, width) that the image was reduced to; that of the mask where it wasn't.
        stride: pixels of the reduced image a cell.

    Returns:
        (ceil(height / stride), ceil(width / stride)); with `stride` 1 and the mask's own size the mask itself.
    """
    rows, columns = (
        np.minimum((np.arange(-(-side // stride)) + 0.5) * (stride * full / side), full - 1).astype(np.int64)
        for side, full in zip(size, truth.shape, strict=True)
    )
    sampled: NDArray[np.uint8] = truth[rows[:, None], columns]
    return sampled
