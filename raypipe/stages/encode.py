"""Brings masks back to the images' original size and sums them up per class."""

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import decode_mask, encode_png, resize_labels
from raypipe.schema import IGNORE
from raypipe.stages.base import Row, Stage


class EncodeMasks(Stage):
    """Final columns of a mask shard: PNGs at the original size, and area and mean confidence of each class present."""

    reads = ("mask", "confidence", "walk_mask", "original_height", "original_width")
    writes = pa.schema(
        [
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("class_ids", pa.list_(pa.uint8())),
            pa.field("mask", pa.binary()),
            pa.field("confidence", pa.binary()),
            pa.field("areas", pa.list_(pa.float32())),
            pa.field("mean_confidences", pa.list_(pa.float32())),
            pa.field("walk_mask", pa.binary()),
        ]
    )
    drops = ("image", "grid_height", "grid_width", "cam_height", "cam_width", "original_height", "original_width")

    def process(self, row: Row) -> Row:
        """Resizes (nearest for class ids, bilinear for confidence) and sums up."""
        size = (row["original_height"], row["original_width"])
        mask = resize_labels(decode_mask(row["mask"]), size)
        confidence = _resize(decode_mask(row["confidence"]), size)
        walk_mask = row["walk_mask"]
        if walk_mask is not None:
            walk_mask = encode_png(resize_labels(decode_mask(walk_mask), size))
        return {
            "height": size[0],
            "width": size[1],
            "mask": encode_png(mask),
            "confidence": encode_png(confidence),
            "walk_mask": walk_mask,
            **sums_of_classes(mask, confidence),
        }


def sums_of_classes(mask: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> Row:
    """`class_ids`, `areas` and `mean_confidences` of a mask (H, W); ignored pixels are of no class."""
    areas = np.bincount(mask.reshape(-1), minlength=256)
    sums = np.bincount(mask.reshape(-1), weights=confidence.reshape(-1), minlength=256)
    present = np.flatnonzero(areas[:IGNORE])
    return {
        "class_ids": present.tolist(),
        "areas": (areas[present] / mask.size).tolist(),
        "mean_confidences": (sums[present] / areas[present] / 255).tolist(),
    }


def _resize(array: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    if array.shape == size:
        return array
    return np.array(Image.fromarray(array).resize((size[1], size[0]), Image.Resampling.BILINEAR))
