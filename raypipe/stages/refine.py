"""From walked scores to a mask at the working size, with or without refinement."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from raypipe.data.arrays import decode_labels, decode_scores
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.dense_crf import COMPAT_BILATERAL, SXY_BILATERAL, SXY_GAUSSIAN, dense_crf_many
from raypipe.ops.pamr import pamr
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row, Stage
from raypipe.stages.decode import pixels_of

_EPS = 1e-12


def margin(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Computes the confidence (H, W) in 0..255: best minus second-best of the scores (L, H, W).

    Scores are normalised to sum 1 in every pixel first. Where there is but one score, the confidence is 255.
    """
    if len(scores) == 1:
        return np.full(scores.shape[1:], 255, dtype=np.uint8)
    normalised = scores / np.maximum(scores.sum(axis=0), _EPS)
    ordered = np.partition(normalised, -2, axis=0)
    confidence: NDArray[np.uint8] = np.rint((ordered[-1] - ordered[-2]) * 255).astype(np.uint8)
    return confidence


@dataclass(kw_only=True)
class RefineMasks(Stage):
    """Mask, confidence and the mask before refinement, as arrays (height, width) of the working size.

    Without refinement a pixel takes the best walked score. With it the scores are raised to `power`, normalised to
    sum 1 and refined first. The confidence is always the walked scores' margin.
    """

    method: Literal["none", "dcrf", "pamr", "given"]
    """`given` takes up what `RefineOnDevice` has refined, which needs no image."""
    power: float = 1.0
    """Exponent of the walked scores before they are refined."""
    compat_bilateral: float = COMPAT_BILATERAL
    """Weight of the dense CRF's term that follows colours."""
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    leaves = ("labels_array", "confidence_array", "walk_array")

    @property
    def reads(self) -> tuple[str, ...]:
        """The image only where it is refined here."""
        needed = {"none": (), "given": ("refined",)}.get(self.method, ("image",))
        return (*needed, "class_ids", "scores", "grid_height", "grid_width", "height", "width")

    def process(self, row: Row) -> Row:
        """Makes one image's mask; images whose only score is the background's need no refinement."""
        grid = decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])
        size = (row["height"], row["width"])
        scores = upsample_to_image(torch.from_numpy(grid), size=size, stride=GRID_STRIDE).numpy()
        names = np.array([0, *row["class_ids"]], dtype=np.uint8)
        walked = labels = names[scores.argmax(axis=0)]
        if self.method == "given" and row["refined"] is not None:
            labels = decode_labels(row["refined"], height=size[0], width=size[1])
        elif self.method in ("dcrf", "pamr") and len(scores) > 1:
            sharpened = (scores / np.maximum(scores.max(axis=0), _EPS)) ** self.power
            normalised = sharpened / np.maximum(sharpened.sum(axis=0), _EPS)
            (refined,) = refine(
                pixels_of(row, max_side=self.max_side),
                [normalised],
                self.method,
                compat_bilateral=self.compat_bilateral,
            )
            labels = names[refined.argmax(axis=0)]
        return {
            "labels_array": labels,
            "confidence_array": margin(scores),
            "walk_array": None if self.method == "none" else walked,
        }


def refine(
    pixels: NDArray[np.uint8],
    scores: Sequence[NDArray[np.float32]],
    method: Literal["dcrf", "pamr"],
    *,
    stride: int = 1,
    compat_bilateral: float = COMPAT_BILATERAL,
) -> list[NDArray[np.float32]]:
    """Refines stacks of scores (L, H, W) along the colours of an image (H, W, 3).

    Args:
        pixels: the image's.
        scores: of the same shape.
        method: what refines them.
        stride: pixels of the full image a pixel of this one; the dense CRF's distances count the former.
        compat_bilateral: weight of the dense CRF's term that follows colours.
    """
    if method == "dcrf":
        return dense_crf_many(
            pixels,
            scores,
            sxy_gaussian=SXY_GAUSSIAN / stride,
            sxy_bilateral=SXY_BILATERAL / stride,
            compat_bilateral=compat_bilateral,
        )
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    # PAMR treats each map alone: all stacks go through it together.
    stacked = torch.from_numpy(np.concatenate(scores))[None]
    with torch.inference_mode():
        refined = pamr(image, stacked)[0].numpy()
    return np.split(refined, np.cumsum([len(stack) for stack in scores])[:-1])
