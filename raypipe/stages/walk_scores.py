"""Scores many settings of the walk on one image whose maps and features are there.

One expansion for each radius and beta gives every number of steps, and all alphas walk along in it as further maps: a
whole grid costs a few times one walk.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.networks.cuda import to_device
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.random_walk import check_walked, propagate_at
from raypipe.ops.separation import separation
from raypipe.ops.unknown import has_blind_cells
from raypipe.ops.walk_choice import WalkChoice, alphas_around, best_labels, steps_around, walk_objectives
from raypipe.schema import GRID_STRIDE, IGNORE
from raypipe.stages.base import Row
from raypipe.stages.cells import Cells
from raypipe.stages.propagate import WALK_TOLERANCE, grid_scores, without_noise

SEPARATIONS = ("feature_separations", "colour_separations")
SCORES = (*SEPARATIONS, "hits", "predicted", "truth_ids", "truth_pixels")
"""Columns of an image's scores."""


class Setting(NamedTuple):
    """One candidate walk."""

    alpha: float
    beta: float
    num_steps: int
    radius: int


@dataclass
class SeenImage:
    """What a walk of an image starts from, and what its masks are judged by."""

    class_ids: list[int]
    cam: Tensor
    """(K, h, w) at `cam_stride`, NaN where unknown."""
    truth: NDArray[np.uint8] | None
    """True class ids, one pixel in `stride` in both directions; None where nobody knows them."""
    cells: Cells | None
    """None where no label asks for a walk."""
    colours: Tensor | None
    """(3, h, w) in [0, 1], of the cells."""


@dataclass(frozen=True, kw_only=True)
class WalkScores:
    """Separations and, where there is a true mask, pixel counts of an image's masks, one a setting.

    The separations are those of the grid's cells. Pixels are counted at a stride: 1 counts each of the working size,
    exactly as in the masks that `PropagateCams` or `GateWalk` and `RefineMasks` make with that setting; 4 counts one in
    16.
    """

    settings: tuple[Setting, ...]
    stride: Literal[1, 4]
    count_padding: bool
    cam_stride: int
    """Pixels a cell of the maps."""
    choice: WalkChoice
    """What an image chooses among with a setting, as in `GateWalk`."""

    @torch.inference_mode()
    def score(self, image: SeenImage) -> Row:
        """The columns `SCORES`; an image without labels is background whatever the setting."""
        cells, truth = image.cells, image.truth
        counts = None
        if truth is not None:
            device = torch.device("cpu") if cells is None else cells.features.device
            counts = PixelCounts(torch.from_numpy(truth), class_ids=image.class_ids, device=device)
        if cells is None or image.colours is None:
            parted = np.zeros((2, len(self.settings)))
            if counts is not None and truth is not None:
                counts.add([*range(len(self.settings))], torch.zeros(1, *truth.shape, dtype=torch.uint8))
        else:
            colours = to_device(image.colours, cells.features.device)
            order, labels = [], []
            sums = []  # finite where all scores are
            for indices, maps in self.walk(image.cam, cells, colours):
                sums.append(maps.sum())
                order += indices
                labels.append(best_labels(maps, num_backgrounds=len(indices)))
                if counts is not None and truth is not None:
                    fine = upsample_to_image(
                        maps, size=(truth.shape[0], truth.shape[1]), stride=GRID_STRIDE // self.stride
                    )
                    counts.add(indices, best_labels(fine, num_backgrounds=len(indices)))
            check_walked(sums)
            num_labels = 1 + len(image.class_ids)
            found = [separation(each, torch.cat(labels), num_labels=num_labels) for each in (cells.features, colours)]
            parted = torch.stack(found).cpu().numpy()[:, np.argsort(order)]
        return {
            "feature_separations": parted[0].tolist(),
            "colour_separations": parted[1].tolist(),
            **(_NO_TRUTH if counts is None else counts.columns()),
        }

    def walk(self, cam: Tensor, cells: Cells, colours: Tensor) -> Iterator[tuple[list[int], Tensor]]:
        """Walked scores of all settings.

        Args:
            cam: (K, h, w) at `cam_stride`, NaN where unknown.
            cells: the image's.
            colours: (3, h, w), where the cells' features are.

        Yields:
            Indices of A settings whose walks differ in alpha alone, and maps (A + K, h, w): their backgrounds, then the
            classes, which they share.
        """
        expansions = list(self._expansions(cam, cells))
        taken = iter(torch.cat([each.taken(cells.features, colours) for each in expansions]).tolist())  # waits once
        for each in expansions:
            places = [divmod(next(taken), len(each.alphas)) for _ in each.members]
            for step, maps in enumerate(each.maps):
                found = [(index, alpha) for index, (at, alpha) in zip(each.members, places, strict=True) if at == step]
                if found:
                    indices, alphas = map(list, zip(*found, strict=True))
                    # One by one: an index that is a list would be copied to the device, which would be waited for.
                    yield indices, torch.cat([*(maps[alpha, None] for alpha in alphas), maps[len(each.alphas) :]])

    def _expansions(self, cam: Tensor, cells: Cells) -> Iterator["_Expansion"]:
        partial = has_blind_cells(cam)  # on the CPU
        for radius in sorted({setting.radius for setting in self.settings}):
            affinity = cells.affinity(radius=radius)
            for beta in sorted({setting.beta for setting in self.settings if setting.radius == radius}):
                members = [index for index, each in enumerate(self.settings) if each[1::2] == (beta, radius)]
                choice: WalkChoice = "given" if partial else self.choice
                walks = [walks_of(self.settings[index], choice) for index in members]
                steps, alphas = (sorted(set(values)) for values in zip(*chain(*walks), strict=True))
                pooled = grid_scores(cam, alphas=alphas, count_padding=self.count_padding, cam_stride=self.cam_stride)
                scores = to_device(pooled, affinity.device)
                walked = propagate_at(scores, affinity, beta=beta, steps=steps, tol=WALK_TOLERANCE)
                yield _Expansion(members, walks, steps, alphas, without_noise(walked) if partial else walked)


def walks_of(setting: Setting, choice: WalkChoice) -> list[tuple[int, float]]:
    """Number of steps and alpha of each walk that an image may take with a setting, in the order of `GateWalk`."""
    return list(product(steps_around(setting.num_steps, choice), alphas_around(setting.alpha, choice)))


@dataclass
class _Expansion:
    """All walks of settings that share beta and radius."""

    members: list[int]
    """Indices of the settings."""
    walks: list[list[tuple[int, float]]]
    """Of each of them, as of `walks_of`."""
    steps: list[int]
    alphas: list[float]
    maps: Tensor
    """(T, A + K, h, w)."""

    def taken(self, features: Tensor, colours: Tensor) -> Tensor:
        """Returns which walk each setting takes, as an index into (T, A) that is flat."""
        steps, alphas = ({value: place for place, value in enumerate(values)} for values in (self.steps, self.alphas))
        places = [[steps[step] * len(alphas) + alphas[alpha] for step, alpha in walks] for walks in self.walks]
        longest = max(map(len, places))
        table = torch.tensor([[*row, *row[:1] * (longest - len(row))] for row in places])
        if longest == 1:
            return table[:, 0]
        values = walk_objectives(self.maps, num_backgrounds=len(alphas), features=features, colours=colours)
        table = to_device(table, values.device)
        return table.gather(1, values.flatten()[table].argmax(dim=1, keepdim=True))[:, 0]


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
