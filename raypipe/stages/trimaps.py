"""Trimaps: what is surely an object or surely background; affinity labels are made of it (AffinityNet §3.2)."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_image, encode_png
from raypipe.ops.cam import resize_cam, stack_background
from raypipe.ops.dense_crf import SXY_BILATERAL, SXY_GAUSSIAN, dense_crf_many
from raypipe.ops.pamr import pamr
from raypipe.ops.trimap import make_trimap
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row, Stage


class MakeTrimaps(Stage):
    """Trimap (ceil(H/8), ceil(W/8)) of an image as a PNG: class ids, 0 background, 255 unsure.

    The maps and the background score are refined by a dense CRF, or by PAMR, twice, under a weak background
    (`alpha_high`) and under a strong one (`alpha_low`); what is an object under both is taken for an object, what is
    background under both for background.
    """

    reads = ("image", "split", "class_ids", "cam", "cam_height", "cam_width")
    writes = pa.schema([pa.field("trimap", pa.binary())])
    drops = ("image",)

    def __init__(
        self,
        *,
        splits: Sequence[str] | None,
        alpha_low: float,
        alpha_high: float,
        crf_stride: int,
        max_side: int,
        refine: Literal["dcrf", "pamr"] = "dcrf",
    ) -> None:
        self.splits = None if splits is None else frozenset(splits)
        self.alphas = (alpha_low, alpha_high)
        self.crf_stride = crf_stride
        self.max_side = max_side
        self.refine = refine

    def process(self, row: Row) -> Row:
        """Makes one image's trimap; null where its split isn't trained on."""
        if self.splits is not None and row["split"] not in self.splits:
            return {"trimap": None}
        image = Image.fromarray(decode_image(row["image"], max_side=self.max_side).pixels)
        pixels = np.array(image.reduce(self.crf_stride))
        size = (pixels.shape[0], pixels.shape[1])
        cam = decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])
        full = resize_cam(torch.from_numpy(cam), size=size) if len(cam) else torch.zeros(0, *size)
        low, high = self._refined(pixels, [stack_background(full, alpha=alpha) for alpha in self.alphas])
        class_ids = np.asarray(row["class_ids"], dtype=np.uint8)
        return {"trimap": encode_png(make_trimap(low, high, class_ids, stride=GRID_STRIDE // self.crf_stride))}

    def _refined(self, pixels: NDArray[np.uint8], scores: Sequence[Tensor]) -> list[NDArray[np.float32]]:
        """The stacks refined. PAMR is linear: the classes' maps, which both stacks share, are refined once."""
        if self.refine == "dcrf":
            return dense_crf_many(
                pixels,
                [stack.numpy() for stack in scores],
                # In pixels of the image that it sees.
                sxy_gaussian=SXY_GAUSSIAN / self.crf_stride,
                sxy_bilateral=SXY_BILATERAL / self.crf_stride,
            )
        backgrounds = [stack[:1] for stack in scores]
        image = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        with torch.inference_mode():
            refined = pamr(image, torch.cat([*backgrounds, scores[0][1:]])[None])[0]
        maps = refined[len(scores) :]
        return [torch.cat([background[None], maps]).numpy() for background in refined[: len(scores)]]
