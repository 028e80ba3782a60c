"""Images to class scores by the segmentation network (AffinityNet §3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.artifacts import Artifact
from raypipe.config.base import Precision
from raypipe.networks.precision import autocasting
from raypipe.ops.cam import Pass, merge_cams
from raypipe.schema import GRID_STRIDE, MASKS
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage
from raypipe.stages.decode import pixels_of
from raypipe.stages.networks import load_segmenter
from raypipe.stages.passes import run_passes
from raypipe.stages.walked import SCORES, encode_grid

_LEAST = 0.01
"""A class that no cell gives so much probability isn't in the image."""


@dataclass(frozen=True)
class ReadImage:
    """An image (H, W, 3) and the class ids that it may have; None allows all."""

    pixels: NDArray[np.uint8]
    allowed: list[int] | None


@dataclass(kw_only=True)
class SegmentImages(JointStage[ReadImage]):
    """Scores (1 + K, grid_height, grid_width) as float32 bytes: probabilities of the background and of K classes.

    The mean over scales and mirror images. `class_ids` are the K classes that some cell takes for possible.
    `predicted_iou`, `walk_alpha` and `walk_steps` are null: they are of walks.
    """

    segmenter: Artifact
    """The checkpoint."""
    scales: tuple[float, ...]
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    precision: Precision
    within_labels: bool = False
    """Only classes of the image's labels are possible, which come in as `class_ids`, where it has any labels."""

    writes = pa.schema([MASKS.field("class_ids"), *SCORES])

    @property
    def reads(self) -> tuple[str, ...]:
        """Labels only where they matter."""
        return ("image", "class_ids", *(("labels",) if self.within_labels else ()))

    def setup(self, device: str) -> None:
        """Loads the segmentation network."""
        self.network, _ = load_segmenter(self.segmenter.uri, device=device, precision=self.precision)
        self.device = torch.device(device)

    def prepare(self, row: Row) -> ReadImage:
        """Takes the pixels and the labels."""
        allowed = row["class_ids"] if self.within_labels and row["labels"] is not None else None
        return ReadImage(pixels_of(row, max_side=self.max_side), allowed)

    @torch.inference_mode()
    def compute(self, prepared: Sequence[ReadImage]) -> list[Row]:
        """Runs the passes and merges each image's."""
        passes = run_passes(
            self._probabilities,
            [image.pixels for image in prepared],
            preprocessing=self.network.preprocessing,
            device=self.device,
            scales=self.scales,
            mirror=True,
            pixels_per_pass=self.pixels_per_pass,
        )
        return [self._encode(image, of_image) for image, of_image in zip(prepared, passes, strict=True)]

    def _probabilities(self, x: Tensor) -> Tensor:
        return autocasting(self.network, self.device, self.precision)(x).softmax(dim=1)

    def _encode(self, image: ReadImage, passes: Sequence[Pass]) -> Row:
        size = (image.pixels.shape[0], image.pixels.shape[1])
        merged = merge_cams(passes, image_size=size, stride=GRID_STRIDE, out_stride=GRID_STRIDE)
        scores = (merged / len(passes)).cpu().numpy()
        possible = [int(class_id) for class_id in np.flatnonzero(scores[1:].max(axis=(1, 2)) >= _LEAST) + 1]
        present = possible if image.allowed is None else image.allowed
        return {"class_ids": present, **encode_grid(scores[[0, *present]])}
