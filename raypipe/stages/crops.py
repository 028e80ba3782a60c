"""Training crops: fetched, decoded and augmented; what is random depends on (seed, epoch, repeat, image_id) alone."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.images import decode_image, decode_mask, reduced_size, resize_map
from raypipe.data.manifest import class_ids_of
from raypipe.data.shards import read_row
from raypipe.data.transforms import ResizedCrop, augment_for_affinity, augmentation_rng
from raypipe.data.truth import read_truth
from raypipe.schema import IGNORE, SHARD_URI, SUPERVISED
from raypipe.stages.base import Row, Stage

Crop = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""A crop (crop_size, crop_size, 3) and its target."""


@dataclass(kw_only=True)
class LoadCrops(Stage):
    """`crop`: bytes of (crop_size, crop_size, 3) uint8; `target`: bytes of what the network is to learn of it.

    Several targets follow one another.
    """

    writes = pa.schema([pa.field("crop", pa.binary()), pa.field("target", pa.binary())])

    crop_size: int
    """Side in pixels."""
    fill: tuple[int, ...]
    """Colour around an image that is smaller than the crop."""
    jitter: tuple[float, float, float, float]
    seed: int
    max_side: int
    """Longer images are reduced to this long side, in pixels."""

    def process(self, row: Row) -> Row:
        """Makes one crop."""
        pixels = decode_image(storage.read_bytes(row["image_uri"]), max_side=self.max_side).pixels
        rng = augmentation_rng(self.seed, row["epoch"], row["image_id"], repeat=row["repeat"])
        crop, target = self.augment(pixels, row, rng)
        return {"crop": crop.tobytes(), "target": target.tobytes()}

    @abstractmethod
    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Makes the crop of an image, and its target."""


@dataclass(kw_only=True)
class LoadClassifierCrops(LoadCrops):
    """Target: (C,) multi-hot labels."""

    classes: tuple[str, ...]
    long_side: tuple[int, int]
    """Range of the random long side in pixels, before the crop."""

    reads: ClassVar[tuple[str, ...]] = ("image_id", "image_uri", "labels", "epoch", "repeat")

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop, mirror and colours."""
        placed = ResizedCrop.draw(pixels.shape, rng, crop=self.crop_size, long_side=self.long_side)
        return placed.lay_image(pixels, rng, fill=self.fill, jitter=self.jitter), self.multi_hot(row["labels"])

    def multi_hot(self, labels: Sequence[str]) -> NDArray[np.uint8]:
        """(C,), 1 for each class that the image shows."""
        target = np.zeros(len(self.classes), dtype=np.uint8)
        target[[class_id - 1 for class_id in class_ids_of(labels, self.classes)]] = 1
        return target


@dataclass(kw_only=True)
class LoadAffinityCrops(LoadCrops):
    """Target: (crop_size / 8, crop_size / 8) trimap, cropped and mirrored with the image."""

    seeds: Artifact
    """Folder of the trimaps."""

    reads = ("image_id", "image_uri", "trimap", "epoch", "repeat")

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random crop and mirror."""
        trimap = decode_mask(row["trimap"])
        return augment_for_affinity(pixels, trimap, rng, crop=self.crop_size, fill=self.fill, jitter=self.jitter)


@dataclass(kw_only=True)
class LoadSegmenterCrops(LoadCrops):
    """Targets: mask (crop_size, crop_size), and whether it is a true mask (1).

    A pseudo-mask (`supervision` isn't `mask`) is read from the row's shard; its pixels below `min_confidence` become
    255.
    """

    masks: Artifact | None
    """Folder of the pseudo-masks; None where all masks are true ones."""
    num_classes: int
    """With background."""
    long_side: tuple[int, int]
    """Range of the random long side in pixels, before the crop."""
    min_confidence: float

    reads = ("image_id", "image_uri", "mask_uri", "supervision", SHARD_URI, "epoch", "repeat")

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop, mirror and colours."""
        is_true = row["supervision"] == SUPERVISED
        mask = read_truth(row["mask_uri"], num_classes=self.num_classes)[0] if is_true else self._pseudo(row)
        size = (pixels.shape[0], pixels.shape[1])
        if reduced_size(mask.shape[1], mask.shape[0], self.max_side) != size[::-1]:
            raise ValueError(f"the mask is {mask.shape} (height, width), the image, reduced to max_side, {size}")
        placed = ResizedCrop.draw(size, rng, crop=self.crop_size, long_side=self.long_side)
        crop = placed.lay_image(pixels, rng, fill=self.fill, jitter=self.jitter)
        labels = placed.lay_map(resize_map(mask, size), outside=IGNORE, resampling=Image.Resampling.NEAREST)
        return crop, np.concatenate([labels.reshape(-1), np.array([is_true], np.uint8)])

    def _pseudo(self, row: Row) -> NDArray[np.uint8]:
        found = read_row(row[SHARD_URI], row["image_id"], columns=["mask", "confidence"])
        sure = decode_mask(found["confidence"]) >= 255 * self.min_confidence
        return np.where(sure, decode_mask(found["mask"]), np.uint8(IGNORE))
