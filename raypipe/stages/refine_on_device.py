"""Refines masks where the networks run, so that no CPU has to: `RefineMasks` takes up what comes out.

The dense CRF is `raypipe.ops.mean_field`, not pydensecrf: the same algorithm, whose masks differ in a few pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.data.arrays import decode_scores, encode_labels
from raypipe.networks.cuda import to_device
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.dense_crf import COMPAT_BILATERAL, SXY_BILATERAL, SXY_GAUSSIAN
from raypipe.ops.mean_field import mean_field
from raypipe.ops.pamr import pamr
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.batching import JointStage
from raypipe.stages.decode import pixels_of

GPU_SETTING = "refinement.device=gpu"
"""What puts stages of this module into a plan."""

_EPS = 1e-12


@dataclass(frozen=True)
class ScoredImage:
    """Scores (1 + K, h, w) on an image's grid and their class ids; pixels are None where there is but one score."""

    pixels: NDArray[np.uint8] | None
    scores: Tensor
    class_ids: Sequence[int]


@dataclass(kw_only=True)
class RefineOnDevice(JointStage[ScoredImage]):
    """Class ids (height, width) of the refined scores, LZ4-packed; null where the background has the only score.

    The scores are raised to `power`, normalised to sum 1 and refined. Images are refined one by one.
    """

    method: Literal["dcrf", "pamr"]
    power: float
    """Exponent of the scores before they are refined."""
    compat_bilateral: float = COMPAT_BILATERAL
    """Weight of the dense CRF's term that follows colours."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image", "class_ids", "scores", "grid_height", "grid_width")
    writes = pa.schema({"refined": pa.binary()})
    gpu_setting = GPU_SETTING

    def setup(self, device: str) -> None:
        """Keeps where to compute."""
        self.device = torch.device(device)

    def prepare(self, row: Row) -> ScoredImage:
        """Takes the pixels and the scores."""
        scores = torch.from_numpy(decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"]))
        pixels = pixels_of(row, max_side=self.max_side) if len(scores) > 1 else None
        return ScoredImage(pixels, scores, row["class_ids"])

    @torch.inference_mode()
    def compute(self, prepared: Sequence[ScoredImage]) -> list[Row]:
        """Refines one image after another."""
        return [
            {"refined": None if image.pixels is None else encode_labels(self._labels(image, image.pixels))}
            for image in prepared
        ]

    def _labels(self, image: ScoredImage, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = (pixels.shape[0], pixels.shape[1])
        scores = upsample_to_image(to_device(image.scores, self.device), size=size, stride=GRID_STRIDE)
        sharpened = (scores / scores.amax(dim=0).clamp(min=_EPS)) ** self.power
        normalised = sharpened / sharpened.sum(dim=0).clamp(min=_EPS)
        (refined,) = refine_on_device(
            to_device(torch.from_numpy(pixels), self.device),
            normalised[None],
            self.method,
            compat_bilateral=self.compat_bilateral,
        )
        names = np.array([0, *image.class_ids], dtype=np.uint8)
        labels: NDArray[np.uint8] = names[refined.argmax(dim=0).to(torch.uint8).cpu().numpy()]
        return labels


def refine_on_device(
    pixels: Tensor,
    scores: Tensor,
    method: Literal["dcrf", "pamr"],
    *,
    stride: int = 1,
    compat_bilateral: float = COMPAT_BILATERAL,
) -> Tensor:
    """Refines stacks of scores (S, L, H, W) along the colours of an image (H, W, 3) of uint8, on their device.

    Args:
        pixels: the image's.
        scores: the stacks.
        method: what refines them.
        stride: pixels of the full image a pixel of this one; the dense CRF's distances count the former.
        compat_bilateral: weight of the dense CRF's term that follows colours.
    """
    if method == "dcrf":
        return mean_field(
            pixels,
            scores,
            sxy_gaussian=SXY_GAUSSIAN / stride,
            sxy_bilateral=SXY_BILATERAL / stride,
            compat_bilateral=compat_bilateral,
        )
    # PAMR treats each map alone: all stacks go through it together.
    return pamr(pixels.permute(2, 0, 1)[None].float() / 255, scores.flatten(0, 1)[None])[0].view_as(scores)
