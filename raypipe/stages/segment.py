"""Images to class scores by the segmentation network (AffinityNet §3.5)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import encode_scores
from raypipe.data.images import decode_image
from raypipe.networks.precision import autocast
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage
from raypipe.stages.networks import load_segmenter
from raypipe.stages.passes import Passes, run_passes

_LEAST = 0.01
"""A class that no cell gives so much probability isn't in the image."""


@dataclass(frozen=True)
class ReadImage:
    """An image (H, W, 3) and the class ids of its labels."""

    pixels: NDArray[np.uint8]
    class_ids: list[int]


class SegmentImages(JointStage[ReadImage]):
    """Scores (1 + K, grid_height, grid_width) as float32 bytes: probabilities of the background and of K classes.

    The mean over scales and mirror images. `class_ids` are the K classes that some cell takes for possible.
    With `within_labels` they are those of the labels, which come in as `class_ids`. `predicted_iou` is null: only walks
    have one.
    """

    reads = ("image", "class_ids")
    writes = pa.schema(
        [
            pa.field("class_ids", pa.list_(pa.uint8())),
            pa.field("scores", pa.binary()),
            pa.field("grid_height", pa.int32()),
            pa.field("grid_width", pa.int32()),
            pa.field("predicted_iou", pa.float32()),
        ]
    )

    def __init__(
        self,
        *,
        checkpoint: str,
        scales: Sequence[float],
        max_side: int,
        precision: Literal["auto", "fp32", "bf16"],
        within_labels: bool = False,
        pixels_per_pass: int | None = None,
    ) -> None:
        self.network, _, self.device = load_segmenter(checkpoint)
        self.scales = tuple(scales)
        self.max_side = max_side
        self.precision = precision
        self.within_labels = within_labels
        self.pixels_per_pass = pixels_per_pass

    def prepare(self, row: Row) -> ReadImage:
        """Decodes the image."""
        return ReadImage(decode_image(row["image"], max_side=self.max_side).pixels, row["class_ids"])

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
        with autocast(self.device, self.precision):
            logits: Tensor = self.network(x)
        return logits.float().softmax(dim=1)

    def _encode(self, image: ReadImage, passes: Passes) -> Row:
        scores = (passes.merged(stride=GRID_STRIDE, out_stride=GRID_STRIDE) / len(passes.maps)).cpu().numpy()
        possible = [int(class_id) for class_id in np.flatnonzero(scores[1:].max(axis=(1, 2)) >= _LEAST) + 1]
        present = image.class_ids if self.within_labels else possible
        return {
            "class_ids": present,
            "scores": encode_scores(scores[[0, *present]]),
            "grid_height": scores.shape[1],
            "grid_width": scores.shape[2],
            "predicted_iou": None,
        }
