"""Spreads class activation maps along affinities by a random walk (AffinityNet §3.4)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.data.arrays import decode_cam
from raypipe.networks.cuda import to_device
from raypipe.ops.cam import background_score, pool_to_grid
from raypipe.ops.random_walk import propagate_batch
from raypipe.ops.unknown import evidence, has_blind_cells
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, Prepared
from raypipe.stages.cells import affinity_source
from raypipe.stages.decode import pixels_of
from raypipe.stages.walked import SCORES, PooledImage, WalkedImage, encode_walks

WALK_TOLERANCE = 1e-5
"""Largest error of a walked score that the expansion may leave."""


def grid_scores(cam: Tensor, *, alphas: Sequence[float], count_padding: bool = False, cam_stride: int) -> Tensor:
    """The walk's input: a background score of each of A alphas, then the maps, on the grid, (A + K, h, w).

    The background comes before the pooling: (1 - max M)^alpha and averaging don't commute.
    """
    backgrounds = torch.stack([background_score(cam, alpha=alpha) for alpha in alphas])
    scores = torch.cat([backgrounds, evidence(cam)])
    return pool_to_grid(scores, stride=GRID_STRIDE // cam_stride, count_padding=count_padding)


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
        return self.pooled(row, (self.alpha,))

    def pooled(self, row: Row, alphas: Sequence[float]) -> PooledImage:
        """Pools the maps, with the background of each alpha; of the first alone where no masks can be compared."""
        cam = torch.from_numpy(decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]))
        is_partial = has_blind_cells(cam)
        alphas = alphas if len(cam) and not is_partial else alphas[:1]
        scores = grid_scores(cam, alphas=alphas, count_padding=self.count_padding, cam_stride=self.cam_stride)
        pixels = pixels_of(row, max_side=self.max_side) if len(cam) else None
        return PooledImage(scores, alphas, pixels, self._skill(row["class_ids"]), is_partial)

    def _skill(self, class_ids: Sequence[int]) -> float | None:
        """The mean over an image's classes."""
        if self.skills is None or not class_ids:
            return None
        return float(np.mean([self.skills[class_id - 1] for class_id in class_ids]))

    def compute(self, prepared: Sequence[PooledImage]) -> list[Row]:
        """Walks the images that have labels."""
        walked = self.propagate(prepared, steps=(self.num_steps,))
        return encode_walks(prepared, walked, [None if image is None else image.taken(0, 0) for image in walked])

    @torch.inference_mode()
    def propagate(self, prepared: Sequence[PooledImage], *, steps: Sequence[int]) -> list["WalkedImage | None"]:
        """Returns each image's walks of some numbers of steps; None for images without labels."""
        labelled = [image for image in prepared if image.pixels is not None]
        cells = self.source([image.pixels for image in labelled if image.pixels is not None])
        affinities = [of_image.affinity(radius=self.radius) for of_image in cells]
        starts = [
            to_device(image.scores, affinity.device) for image, affinity in zip(labelled, affinities, strict=True)
        ]
        walked = propagate_batch(starts, affinities, beta=self.beta, steps=steps, tol=WALK_TOLERANCE)
        walks = (
            WalkedImage(without_noise(maps) if image.is_partial else maps, image.alphas, steps, of_image)
            for image, maps, of_image in zip(labelled, walked, cells, strict=True)
        )
        return [None if image.pixels is None else next(walks) for image in prepared]


def without_noise(scores: Tensor) -> Tensor:
    """Walked scores with 0 below the walk's tolerance.

    Maps that are known everywhere leave no cell without a score. Far from all that is known, the scores of a walk from
    a few strokes are smaller than its error, which must not choose a class.
    """
    return scores.masked_fill(scores < WALK_TOLERANCE, 0)
