"""Scores many settings of the walk in one pass of the networks.

Maps and features are computed once an image. One expansion a beta gives every number of steps, and all alphas
walk along in it as further maps: a whole grid costs a few times one walk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import decode_cam
from raypipe.data.truth import as_shown, read_truth
from raypipe.networks.cuda import to_device
from raypipe.ops.cam import background_score, pool_to_grid, upsample_to_image
from raypipe.ops.random_walk import check_walked, propagate_at
from raypipe.ops.separation import separation
from raypipe.ops.unknown import evidence, has_blind_cells
from raypipe.schema import GRID_STRIDE, IGNORE, SETTINGS, columns
from raypipe.stages.base import Row
from raypipe.stages.decode import pixels_of
from raypipe.stages.propagate import WALK_TOLERANCE, Cells, WalkStage, cell_colours, without_noise

SCORES = ("feature_separations", "colour_separations", "hits", "predicted", "truth_ids", "truth_pixels")
"""Columns that this stage writes."""


class Setting(NamedTuple):
    """One candidate walk."""

    alpha: float
    beta: float
    num_steps: int


@dataclass
class ScoredImage:
    """An image on its way; pixels are None where no label asks for a walk."""

    class_ids: list[int]
    cam: Tensor
    pixels: NDArray[np.uint8] | None
    size: tuple[int, int]
    truth: NDArray[np.uint8] | None
    """(H, W) at the image's original size."""


@dataclass(kw_only=True)
class ScoreSettings(WalkStage[ScoredImage]):
    """Separations and, where there is a true mask, pixel counts of an image's masks, one a setting.

    The separations are those of the grid's cells. Pixels are counted at a stride: 1 counts each of the working size,
    exactly as in the masks that `PropagateCams` and `RefineMasks` make with that setting; 4 counts one in 16.
    """

    settings: tuple[Setting, ...]
    stride: Literal[1, 4]
    num_classes: int
    """With background."""

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
            size=(row["height"], row["width"]),
            truth=self._truth(row) if row["mask_uri"] else None,
        )

    def _truth(self, row: Row) -> NDArray[np.uint8]:
        truth, _ = read_truth(row["mask_uri"], num_classes=self.num_classes)
        return as_shown(truth, size=(row["original_height"], row["original_width"]), image=lambda: row["image"])

    @torch.inference_mode()
    def compute(self, prepared: Sequence[ScoredImage]) -> list[Row]:
        """Scores the images; one without labels is background whatever the setting."""
        cells = iter(self.source([image.pixels for image in prepared if image.pixels is not None]))
        return [self._score(image, None if image.pixels is None else next(cells)) for image in prepared]

    def _score(self, image: ScoredImage, cells: Cells | None) -> Row:
        counts = None
        if image.truth is not None:
            truth = torch.from_numpy(sample_truth(image.truth, size=image.size, stride=self.stride))
            device = torch.device("cpu") if cells is None else cells.features.device
            counts = PixelCounts(truth, class_ids=image.class_ids, device=device)
        if cells is None or image.pixels is None:
            parted = np.zeros((2, len(self.settings)))
            if counts is not None:
                counts.add([*range(len(self.settings))], torch.zeros(1, *truth.shape, dtype=torch.uint8))
        else:
            order, labels = [], []
            sums = []  # finite where all scores are
            for indices, maps in self.walk(image.cam, cells):
                sums.append(maps.sum())
                order += indices
                labels.append(best_labels(maps, num_backgrounds=len(indices)))
                if counts is not None:
                    fine = upsample_to_image(
                        maps, size=(truth.shape[0], truth.shape[1]), stride=GRID_STRIDE // self.stride
                    )
                    counts.add(indices, best_labels(fine, num_backgrounds=len(indices)))
            check_walked(sums)
            colours = to_device(cell_colours(image.pixels), cells.features.device)
            num_labels = 1 + len(image.class_ids)
            found = [separation(maps, torch.cat(labels), num_labels=num_labels) for maps in (cells.features, colours)]
            parted = torch.stack(found).cpu().numpy()[:, np.argsort(order)]
        return {
            "feature_separations": parted[0].tolist(),
            "colour_separations": parted[1].tolist(),
            **(_NO_TRUTH if counts is None else counts.columns()),
        }

    def walk(self, cam: Tensor, cells: Cells) -> Iterator[tuple[list[int], Tensor]]:
        """Walked scores of all settings.

        Args:
            cam: (K, h, w) at `cam_stride`, NaN where unknown.
            cells: the image's.

        Yields:
            Indices of A settings that differ in alpha alone, and maps (A + K, h, w): their backgrounds, then the
            classes, which they share.
        """
        stride = GRID_STRIDE // self.cam_stride
        alphas = sorted({setting.alpha for setting in self.settings})
        backgrounds = torch.stack([background_score(cam, alpha=alpha) for alpha in alphas])
        stacked = torch.cat([backgrounds, evidence(cam)])
        partial = has_blind_cells(cam)  # on the CPU
        pooled = pool_to_grid(stacked, stride=stride, count_padding=self.count_padding)
        scores = to_device(pooled, cells.features.device)
        affinity = cells.affinity(radius=self.radius)
        for beta in sorted({setting.beta for setting in self.settings}):
            members = [index for index, setting in enumerate(self.settings) if setting.beta == beta]
            steps = sorted({self.settings[index].num_steps for index in members})
            walked = propagate_at(scores, affinity, beta=beta, steps=steps, tol=WALK_TOLERANCE)
            for num_steps, scored in zip(steps, walked, strict=True):
                maps = without_noise(scored) if partial else scored
                indices = [index for index in members if self.settings[index].num_steps == num_steps]
                wanted = [alphas.index(self.settings[index].alpha) for index in indices]
                # One by one: an index that is a list would be copied to the device, which would be waited for.
                yield indices, torch.cat([*(maps[index, None] for index in wanted), maps[len(alphas) :]])


def best_labels(maps: Tensor, *, num_backgrounds: int) -> Tensor:
    """Index of the best score in each cell, 0 for background, one labelling a background.

    Args:
        maps: (A + K, h, w), A backgrounds before the K >= 1 classes.
        num_backgrounds: A.

    Returns:
        (A, h, w) uint8, as the argmax of [background, classes] gives it: the first of equals wins.
    """
    best, index = maps[num_backgrounds:].max(dim=0)
    return torch.where(maps[:num_backgrounds] >= best, 0, index + 1).to(torch.uint8)


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


_NO_TRUTH = {"hits": None, "predicted": None, "truth_ids": None, "truth_pixels": None}


class PixelCounts:
    """Pixels by setting and label, counted on a device that is waited for once, in the end."""

    def __init__(self, truth: Tensor, *, class_ids: Sequence[int], device: torch.device) -> None:
        ids, pixels = torch.unique(truth[truth != IGNORE], return_counts=True)
        self.truth_ids, self.truth_pixels = ids.tolist(), pixels.tolist()
        flat = truth.flatten()
        # Ones where the truth is known, then where it is each label.
        weights = torch.stack([flat != IGNORE, *(flat == label for label in (0, *class_ids))])
        self.weights = to_device(weights, device).float()
        self.order: list[int] = []
        self.counts: list[Tensor] = []

    def add(self, indices: Sequence[int], labels: Tensor) -> None:
        """Counts labellings of the settings with these indices.

        Args:
            indices: A of them.
            labels: (A, h, w), or (1, h, w) for all of them.
        """
        flat = labels.flatten(1)
        # Sums of ones as products: exact in float32, as no working size has 2^24 pixels.
        counts = [
            (flat == label).float() @ self.weights[: 2 + label : 1 + label].T for label in range(len(self.weights) - 1)
        ]
        self.order += indices
        self.counts.append(torch.stack(counts, dim=1).expand(len(indices), -1, -1))

    def table(self) -> NDArray[np.int32]:
        """Pixels that each setting gave each label, and how many of them rightly: (settings, 1 + K, 2)."""
        counts: NDArray[np.int32] = torch.cat(self.counts).cpu().numpy().astype("<i4")[np.argsort(self.order)]
        return counts

    def columns(self) -> Row:
        """As they are stored, in the order of the settings."""
        counts = self.table()
        return {
            "hits": counts[..., 1].tobytes(),
            "predicted": counts[..., 0].tobytes(),
            "truth_ids": self.truth_ids,
            "truth_pixels": self.truth_pixels,
        }
