"""From walked scores to a mask at the working size, with or without refinement."""

from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe.data.arrays import decode_scores
from raypipe.data.images import decode_image, encode_png
from raypipe.ops.cam import upsample_to_image
from raypipe.ops.dense_crf import COMPAT_BILATERAL, dense_crf
from raypipe.ops.pamr import pamr
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row, Stage

_EPS = 1e-12


def margin(scores: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Confidence (H, W) in 0..255: best minus second-best score, scores (L, H, W) normalised to sum 1 in every pixel.

    One score alone has no rival: 255.
    """
    if len(scores) == 1:
        return np.full(scores.shape[1:], 255, dtype=np.uint8)
    normalised = scores / np.maximum(scores.sum(axis=0), _EPS)
    ordered = np.partition(normalised, -2, axis=0)
    confidence: NDArray[np.uint8] = np.rint((ordered[-1] - ordered[-2]) * 255).astype(np.uint8)
    return confidence


class RefineMasks(Stage):
    """Mask, confidence and the mask before refinement, at the working size, as PNGs.

    `none` takes the best walked score. `dcrf` raises the scores to `power`, normalises them to sum 1 and refines them
    by a dense CRF first; `pamr` does the same by PAMR. The confidence is always the walked scores' margin.
    """

    reads = ("image", "class_ids", "scores", "grid_height", "grid_width", "height", "width")
    writes = pa.schema(
        [pa.field("mask", pa.binary()), pa.field("confidence", pa.binary()), pa.field("walk_mask", pa.binary())]
    )
    drops = ("scores",)

    def __init__(
        self,
        *,
        method: Literal["none", "dcrf", "pamr"],
        max_side: int,
        power: float = 1.0,
        compat_bilateral: float = COMPAT_BILATERAL,
    ) -> None:
        self.method = method
        self.power = power
        self.compat_bilateral = compat_bilateral
        self.max_side = max_side

    def process(self, row: Row) -> Row:
        """Makes one image's mask."""
        grid = decode_scores(row["scores"], height=row["grid_height"], width=row["grid_width"])
        size = (row["height"], row["width"])
        scores = upsample_to_image(torch.from_numpy(grid), size=size, stride=GRID_STRIDE).numpy()
        names = np.array([0, *row["class_ids"]], dtype=np.uint8)
        walk_mask = encode_png(names[scores.argmax(axis=0)])
        mask = walk_mask
        if self.method != "none" and len(scores) > 1:
            pixels = decode_image(row["image"], max_side=self.max_side).pixels
            sharpened = (scores / np.maximum(scores.max(axis=0), _EPS)) ** self.power
            refined = self._refine(pixels, sharpened / np.maximum(sharpened.sum(axis=0), _EPS))
            mask = encode_png(names[refined.argmax(axis=0)])
        return {
            "mask": mask,
            "confidence": encode_png(margin(scores)),
            "walk_mask": walk_mask if self.method != "none" else None,
        }

    def _refine(self, pixels: NDArray[np.uint8], scores: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.method == "dcrf":
            return dense_crf(pixels, scores, compat_bilateral=self.compat_bilateral)
        return refine_by_pamr(pixels, scores)


def refine_by_pamr(pixels: NDArray[np.uint8], scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """PAMR of one image (H, W, 3) and its scores (L, H, W)."""
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        refined: NDArray[np.float32] = pamr(image, torch.from_numpy(scores)[None])[0].numpy()
    return refined
