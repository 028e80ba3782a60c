"""Training crops: fetched, decoded and augmented; what is random depends on (seed, epoch, repeat, image_id) alone."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import decode_image, decode_mask, reduced_size, resize_labels
from raypipe.data.manifest import class_ids_of
from raypipe.data.shards import read_row
from raypipe.data.transforms import (
    augment_for_affinity,
    augment_for_classifier,
    augment_for_segmenter,
    augmentation_rng,
)
from raypipe.data.truth import read_truth
from raypipe.schema import IGNORE, SUPERVISED
from raypipe.stages.base import Row, Stage


class LoadCrops(Stage):
    """`crop`: bytes of (crop_size, crop_size, 3) uint8; `target`: bytes of what the network is to learn of it.

    Several targets follow one another.
    """

    writes = pa.schema([pa.field("crop", pa.binary()), pa.field("target", pa.binary())])

    def __init__(
        self, *, crop_size: int, fill: Sequence[int], jitter: Sequence[float], seed: int, max_side: int
    ) -> None:
        self.crop_size = crop_size
        self.fill = tuple(fill)
        self.jitter = tuple(jitter)
        self.seed = seed
        self.max_side = max_side

    def process(self, row: Row) -> Row:
        """Makes one crop."""
        pixels = decode_image(storage.read_bytes(row["image_uri"]), max_side=self.max_side).pixels
        rng = augmentation_rng(self.seed, row["epoch"], row["image_id"], repeat=row["repeat"])
        crop, target = self.augment(pixels, row, rng)
        return {"crop": crop.tobytes(), "target": target.tobytes()}

    @abstractmethod
    def augment(
        self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Crop (crop_size, crop_size, 3) and target of an image."""


class LoadClassifierCrops(LoadCrops):
    """Target: (C,) multi-hot labels."""

    reads: ClassVar[tuple[str, ...]] = ("image_id", "image_uri", "labels", "epoch", "repeat")
    drops: ClassVar[tuple[str, ...]] = ("labels",)

    def __init__(
        self,
        *,
        classes: tuple[str, ...],
        long_side: tuple[int, int],
        crop_size: int,
        fill: Sequence[int],
        jitter: Sequence[float],
        seed: int,
        max_side: int,
    ) -> None:
        super().__init__(crop_size=crop_size, fill=fill, jitter=jitter, seed=seed, max_side=max_side)
        self.classes = classes
        self.long_side = long_side

    def augment(
        self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Random size, crop, mirror and colours."""
        crop = augment_for_classifier(
            pixels, rng, crop=self.crop_size, long_side=self.long_side, fill=self.fill, jitter=self.jitter
        )
        return crop, self.multi_hot(row["labels"])

    def multi_hot(self, labels: Sequence[str]) -> NDArray[np.uint8]:
        """(C,), 1 for each class that the image shows."""
        target = np.zeros(len(self.classes), dtype=np.uint8)
        target[[class_id - 1 for class_id in class_ids_of(labels, self.classes)]] = 1
        return target


class LoadAffinityCrops(LoadCrops):
    """Target: (crop_size / 8, crop_size / 8) trimap, cropped and mirrored with the image."""

    reads = ("image_id", "image_uri", "trimap", "epoch", "repeat")
    drops = ("trimap",)

    def augment(
        self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Random crop and mirror."""
        trimap = decode_mask(row["trimap"])
        return augment_for_affinity(pixels, trimap, rng, crop=self.crop_size, fill=self.fill, jitter=self.jitter)


class LoadSegmenterCrops(LoadCrops):
    """Targets: mask (crop_size, crop_size), weights of its pixels in 1/255, and whether it is a true mask (1).

    A true mask (`supervision` is `mask`) weighs 1 everywhere. A pseudo-mask is read from the row's shard; its pixels
    below `min_confidence` become 255, the others weigh confidence^`confidence_power`.
    """

    reads = ("image_id", "image_uri", "mask_uri", "supervision", "shard_uri", "epoch", "repeat")
    drops = ("labels", "mask_uri", "supervision", "shard_uri")

    def __init__(
        self,
        *,
        num_classes: int,
        long_side: tuple[int, int],
        min_confidence: float,
        confidence_power: float,
        crop_size: int,
        fill: Sequence[int],
        jitter: Sequence[float],
        seed: int,
        max_side: int,
    ) -> None:
        super().__init__(crop_size=crop_size, fill=fill, jitter=jitter, seed=seed, max_side=max_side)
        self.num_classes = num_classes
        self.long_side = long_side
        confidence = np.arange(256) / 255
        weights = np.where(confidence < min_confidence, 0, confidence**confidence_power)
        self.weights = np.rint(255 * weights).astype(np.uint8)

    def augment(
        self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Random size, crop, mirror and colours."""
        is_true = row["supervision"] == SUPERVISED
        mask, weight = self._true(row) if is_true else self._pseudo(row)
        size = (pixels.shape[0], pixels.shape[1])
        if reduced_size(mask.shape[1], mask.shape[0], self.max_side) != size[::-1]:
            raise ValueError(f"the mask is {mask.shape} (height, width), the image, reduced to max_side, {size}")
        crop, labels = augment_for_segmenter(
            pixels,
            [resize_labels(mask, size), resize_labels(weight, size)],
            rng,
            crop=self.crop_size,
            long_side=self.long_side,
            fill=self.fill,
            jitter=self.jitter,
        )
        return crop, np.concatenate([*(values.reshape(-1) for values in labels), np.array([is_true], np.uint8)])

    def _true(self, row: Row) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        mask, _ = read_truth(row["mask_uri"], num_classes=self.num_classes)
        return mask, np.full_like(mask, 255)

    def _pseudo(self, row: Row) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        found = read_row(row["shard_uri"], row["image_id"], columns=["mask", "confidence"])
        weight = self.weights[decode_mask(found["confidence"])]
        return np.where(weight > 0, decode_mask(found["mask"]), IGNORE).astype(np.uint8), weight
