"""No-harm gates: how good an image's masks are before and after a refinement, by what the refinement doesn't optimise.

The walk is judged by the separation of features and colours, refined masks by class consistency. Neither judges the
other: maps are made by the classifier whose consistency it would be, and a walk maximises the separation at the grid's
resolution, so that finer masks can only lose it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.images import decode_image, decode_mask
from raypipe.networks import network_input
from raypipe.networks.precision import autocast
from raypipe.ops.consistency import class_consistency, masked_copies
from raypipe.ops.separation import objective, separation
from raypipe.schema import GATES
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage, in_passes
from raypipe.stages.networks import load_classifier
from raypipe.stages.propagate import Cells, PooledImage, PropagateCams, cell_colours

_SCORES = (GATES.field("score_before"), GATES.field("score_after"))
_PIXELS_PER_PASS = 8_000_000
"""Of one image's copies: about what its largest scale and mirror image have in `ComputeCams`."""


class GateWalk(PropagateCams):
    """Scores as of `PropagateCams`, and how well they part the image before and after the walk; null without labels.

    With `keep_better` an image takes its scores from before the walk unless it parts them better.
    """

    writes = pa.schema([*PropagateCams.writes, *_SCORES])

    def __init__(self, *, keep_better: bool, **walk: Any) -> None:
        super().__init__(**walk)
        self.keep_better = keep_better

    def finish(self, images: Sequence[PooledImage], walked: Sequence[Tensor], cells: Sequence[Cells]) -> list[Row]:
        """Judges the walks before their scores are encoded."""
        starts = [image.scores.to(scores.device) for image, scores in zip(images, walked, strict=True)]
        judged = [
            _objectives(torch.stack(pair), of_image.features, image.pixels)
            for *pair, of_image, image in zip(starts, walked, cells, images, strict=True)
        ]
        kept = [
            start if self.keep_better and after <= before else scores
            for start, scores, (before, after) in zip(starts, walked, judged, strict=True)
        ]
        rows = super().finish(images, kept, cells)
        return [
            row | {"score_before": before, "score_after": after}
            for row, (before, after) in zip(rows, judged, strict=True)
        ]


def _objectives(scores: Tensor, features: Tensor, pixels: NDArray[np.uint8] | None) -> list[float]:
    """Objective of each of S labellings, from their scores (S, 1 + K, h, w)."""
    assert pixels is not None  # images without labels are not walked
    labels = scores.argmax(dim=1).to(torch.uint8)
    colours = cell_colours(pixels).to(features.device)
    parted = [separation(of_cells, labels, num_labels=scores.shape[1]) for of_cells in (features, colours)]
    values: list[float] = objective(*parted).tolist()
    return values


@dataclass
class MaskedImage:
    """An image with its masks (H, W) before and after refinement."""

    pixels: NDArray[np.uint8]
    class_ids: list[int]
    masks: list[NDArray[np.uint8]]
    encoded: list[bytes]


class GateMasks(JointStage[MaskedImage]):
    """Class consistency of the masks before and after refinement; null without labels.

    With `keep_better` an image takes its mask from before the refinement unless that is less consistent. Images never
    share a pass: one has enough copies.
    """

    reads = ("image", "class_ids", "mask", "walk_mask")
    writes = pa.schema([pa.field("mask", pa.binary()), *_SCORES])

    def __init__(
        self,
        *,
        checkpoint: str,
        precision: Literal["auto", "fp32", "bf16"],
        max_side: int,
        keep_better: bool,
        pixels_per_pass: int | None = None,
    ) -> None:
        self.network, _, self.device = load_classifier(checkpoint)
        self.precision = precision
        self.max_side = max_side
        self.keep_better = keep_better
        self.pixels_per_pass = pixels_per_pass

    def prepare(self, row: Row) -> MaskedImage:
        """Decodes the image and its masks."""
        pixels = decode_image(row["image"], max_side=self.max_side).pixels
        encoded = [row["walk_mask"], row["mask"]]
        return MaskedImage(pixels, row["class_ids"], [decode_mask(mask) for mask in encoded], encoded)

    def compute(self, prepared: Sequence[MaskedImage]) -> list[Row]:
        """Judges one image after another."""
        return [self._judge(image) for image in prepared]

    def _judge(self, image: MaskedImage) -> Row:
        if not image.class_ids:
            return {"mask": image.encoded[1], "score_before": None, "score_after": None}
        before, after = (self._consistency(image, mask) for mask in image.masks)
        kept = not self.keep_better or after > before
        return {"mask": image.encoded[kept], "score_before": before, "score_after": after}

    @torch.inference_mode()
    def _consistency(self, image: MaskedImage, mask: NDArray[np.uint8]) -> float:
        x, (height, width) = network_input(image.pixels, preprocessing=self.network.preprocessing, device=self.device)
        regions = torch.from_numpy(np.stack([mask == class_id for class_id in image.class_ids])).to(self.device)
        copies = masked_copies(x[0, :, :height, :width], regions)
        copies = F.pad(copies, (0, x.shape[-1] - width, 0, x.shape[-2] - height))
        copies = copies.contiguous(memory_format=torch.channels_last)
        logits = torch.cat(in_passes(self._logits, torch.split(copies, 1), pixels_per_pass=_PIXELS_PER_PASS))
        return class_consistency(logits, [class_id - 1 for class_id in image.class_ids]).item()

    def _logits(self, x: Tensor) -> Tensor:
        with autocast(self.device, self.precision):
            logits: Tensor = self.network.classify(x)
        return logits.float()
