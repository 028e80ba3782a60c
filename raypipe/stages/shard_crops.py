"""Training crops whose targets an earlier stream has written: trimaps for the AffinityNet, masks for the segmenter."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.data.images import decode_mask, resize_map
from raypipe.data.shards import Place, RowReader
from raypipe.data.transforms import ResizedCrop, augment_for_affinity
from raypipe.data.truth import as_shown, check_truth
from raypipe.progress import waiting
from raypipe.schema import GRID_STRIDE, IGNORE, SHARD_ROW, SHARD_URI, SUPERVISED
from raypipe.stages.base import Row
from raypipe.stages.crops import Crop, LoadCrops, fetched


@dataclass(kw_only=True)
class LoadShardCrops(LoadCrops):
    """Crops whose targets are made of what an earlier stream has written, read from the shard that `shard_uri` names.

    No row carries it: bytes of 200,000 masks are gigabytes.
    """

    shard_columns: ClassVar[tuple[str, ...]]
    """What is read of a shard's row."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - crops need none
        """Makes the reader of shards, which keeps their footers in this process."""
        self.shards = RowReader()

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Reads from the shards of all rows at once, too."""
        places = {_place(row) for row in rows if row.get("error_stage") is None and self.in_shard(row)}
        with waiting():
            found = self.shards.read_many(places, columns=self.shard_columns)
        return super().process_all([row | {"found": found} for row in rows])

    def in_shard(self, row: Row) -> bool:  # noqa: ARG002 - a subclass looks at it
        """Whether this row's target is in a shard."""
        return True

    def from_shard(self, row: Row) -> Row:
        """What was read of the row's shard.

        Raises:
            ShardError: the shard is damaged, or lacks the row.
            OSError: it couldn't be read.
        """
        place = _place(row)
        found: Row | Exception
        found = row["found"][place] if "found" in row else self.shards.read(place, columns=self.shard_columns)
        if isinstance(found, Exception):
            raise found
        return found


def _place(row: Row) -> Place:
    return Place(row[SHARD_URI], row[SHARD_ROW])


@dataclass(kw_only=True)
class LoadAffinityCrops(LoadShardCrops):
    """Target: (crop_size / 8, crop_size / 8) trimap, cropped and mirrored with the image."""

    seeds: Artifact
    """Folder of the trimaps."""

    reads = ("image_id", "image_uri", SHARD_URI, SHARD_ROW, "epoch", "repeat")
    shard_columns = ("trimap",)

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random crop and mirror.

        Raises:
            ValueError: the seeds have no trimap of the image, or it is that of another.
        """
        encoded = self.from_shard(row)["trimap"]
        if encoded is None:
            raise ValueError(f"{row[SHARD_URI]} has no trimap of it: it was made for other splits.train")
        trimap = decode_mask(encoded)
        if (window := row.get("window")) is not None:
            trimap = window.part(trimap, stride=GRID_STRIDE)
        laid, labels, inside = augment_for_affinity(pixels, trimap, rng, crop=self.crop_size, fill=self.fill)
        return Crop(laid, inside, labels)


@dataclass(kw_only=True)
class LoadSegmenterCrops(LoadShardCrops):
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

    reads = ("image_id", "image_uri", "mask_uri", "supervision", SHARD_URI, SHARD_ROW, "epoch", "repeat")
    shard_columns = ("mask", "confidence", "height", "width")

    def in_shard(self, row: Row) -> bool:
        """A true mask is a file of its own."""
        return bool(row["supervision"] != SUPERVISED)

    def files(self, row: Row) -> Iterator[str]:
        """The true mask, too."""
        yield from super().files(row)
        if not self.in_shard(row) and row["mask_uri"]:
            yield row["mask_uri"]

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop and mirror."""
        is_true = not self.in_shard(row)
        size = (pixels.shape[0], pixels.shape[1])
        mask = self._true(row) if is_true else self._pseudo(row)
        if (window := row.get("window")) is not None:
            mask = window.part(mask)
        else:
            content = partial(fetched, row, row["image_uri"])
            mask = as_shown(mask, size=size, image=content, max_side=self.max_side, name="the mask")
        placed = ResizedCrop.draw(size, rng, crop=self.crop_size, long_side=self.long_side)
        labels = placed.lay_map(resize_map(mask, size), outside=IGNORE, resampling=Image.Resampling.NEAREST)
        target = np.concatenate([labels.reshape(-1), np.array([is_true], np.uint8)])
        return Crop(placed.lay_image(pixels, fill=self.fill), placed.inside, target)

    def _true(self, row: Row) -> NDArray[np.uint8]:
        return check_truth(fetched(row, row["mask_uri"]), num_classes=self.num_classes)

    def _pseudo(self, row: Row) -> NDArray[np.uint8]:
        found = self.from_shard(row)
        size = (found["height"], found["width"])
        sure = decode_mask(found["confidence"], size=size) >= 255 * self.min_confidence
        return np.where(sure, decode_mask(found["mask"], size=size), np.uint8(IGNORE))
