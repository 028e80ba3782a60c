"""Trimaps: what is surely an object or surely background; affinity labels are made of it (AffinityNet §3.2)."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from raypipe.config import Trimaps
from raypipe.data.arrays import decode_cam
from raypipe.data.images import encode_png
from raypipe.ops.cam import resize_cam, stack_background
from raypipe.ops.trimap import make_trimap
from raypipe.schema import GRID_STRIDE, SEEDS, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.decode import pixels_of
from raypipe.stages.refine import refine


@dataclass(kw_only=True)
class MakeTrimaps(Stage):
    """Trimap (ceil(H/8), ceil(W/8)) of an image as a PNG: class ids, 0 background, 255 unsure.

    The maps and the background score are refined twice, under a weak background (`alpha_high`) and under a strong one
    (`alpha_low`); what is an object under both is taken for an object, what is background under both for background.
    """

    splits: tuple[str, ...] | None
    """Splits that are trained on; images of others get no trimap. None makes one of every image."""
    trimaps: Trimaps
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    reads = ("image", "split", "class_ids", "cam", "cam_height", "cam_width")
    writes = columns(SEEDS, "trimap")

    def process(self, row: Row) -> Row:
        """Makes one image's trimap; null where its split isn't trained on."""
        if self.splits is not None and row["split"] not in self.splits:
            return {"trimap": None}
        trimaps = self.trimaps
        stride = trimaps.crf_stride
        image = Image.fromarray(pixels_of(row, max_side=self.max_side))
        pixels = np.array(image.reduce(stride))
        size = (pixels.shape[0], pixels.shape[1])
        cam = decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])
        full = resize_cam(torch.from_numpy(cam), size=size) if len(cam) else torch.zeros(0, *size)
        stacks = [stack_background(full, alpha=alpha).numpy() for alpha in (trimaps.alpha_low, trimaps.alpha_high)]
        low, high = refine(pixels, stacks, trimaps.refine, stride=stride)
        class_ids = np.asarray(row["class_ids"], dtype=np.uint8)
        return {"trimap": encode_png(make_trimap(low, high, class_ids, stride=GRID_STRIDE // stride))}
