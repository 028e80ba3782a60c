"""Brings masks back to the images' original size and sums them up per class."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import encode_png, resize_map
from raypipe.schema import IGNORE, MASKS, columns
from raypipe.stages.base import Row, Stage

_PIXELS_AT_A_TIME = 2**20


@dataclass
class EncodeMasks(Stage):
    """Final columns of a mask shard: PNGs at the original size, and area and mean confidence of each class present."""

    reads = ("labels_array", "confidence_array", "walk_array", "original_height", "original_width")
    writes = columns(
        MASKS, "height", "width", "class_ids", "mask", "confidence", "areas", "mean_confidences", "walk_mask"
    )

    def process(self, row: Row) -> Row:
        """Resizes (nearest for class ids, bilinear for confidence), sums up and encodes."""
        size = (row["original_height"], row["original_width"])
        mask = resize_map(row["labels_array"], size)
        confidence = resize_map(row["confidence_array"], size, Image.Resampling.BILINEAR)
        walked = row["walk_array"]
        return {
            "height": size[0],
            "width": size[1],
            "mask": encode_png(mask),
            "confidence": encode_png(confidence),
            "walk_mask": None if walked is None else encode_png(resize_map(walked, size)),
            **sums_of_classes(mask, confidence),
        }


def sums_of_classes(mask: NDArray[np.uint8], confidence: NDArray[np.uint8]) -> Row:
    """Computes `class_ids`, `areas` and `mean_confidences` of a mask (H, W); ignored pixels are of no class."""
    areas, sums = np.zeros(256, np.int64), np.zeros(256)
    flat = mask.reshape(-1), confidence.reshape(-1)
    for start in range(0, mask.size, _PIXELS_AT_A_TIME):  # counting takes 16 bytes a pixel
        ids, values = (part[start : start + _PIXELS_AT_A_TIME] for part in flat)
        areas += np.bincount(ids, minlength=256)
        sums += np.bincount(ids, weights=values, minlength=256)
    present = np.flatnonzero(areas[:IGNORE])
    return {
        "class_ids": present.tolist(),
        "areas": (areas[present] / mask.size).tolist(),
        "mean_confidences": (sums[present] / areas[present] / 255).tolist(),
    }
