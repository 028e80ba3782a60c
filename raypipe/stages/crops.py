"""Training crops: fetched, decoded and augmented; what is random depends on (seed, epoch, repeat, image_id) alone."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import NOT_IN_DIGEST
from raypipe.config import Images
from raypipe.data.images import decode_image
from raypipe.data.manifest import class_ids_of
from raypipe.data.scenes import Scene, find_scenes
from raypipe.data.transforms import Rectangle, ResizedCrop, augmentation_rng
from raypipe.ops.jitter import change_colours, draw_colour_change
from raypipe.stages.base import Row, Stage

_COLOURS = pa.struct(
    {
        **dict.fromkeys(("brightness", "contrast", "saturation", "hue"), pa.float64()),
        **dict.fromkeys(("order", "inside"), pa.list_(pa.int32())),
    }
)
"""A `ColourChange`."""


class Crop(NamedTuple):
    """A crop before its colours are changed."""

    pixels: NDArray[np.uint8]
    """(crop_size, crop_size, 3)."""
    inside: Rectangle
    """Where the image lies in it."""
    target: NDArray[np.uint8]
    """What the network is to learn of it."""


@dataclass(kw_only=True)
class LoadCrops(Stage):
    """`crop`: bytes of (crop_size, crop_size, 3) uint8; `target`: bytes of what the network is to learn of it.

    Several targets follow one another.
    """

    writes = pa.schema([pa.field("crop", pa.binary()), pa.field("target", pa.binary()), pa.field("colours", _COLOURS)])
    kind = "fetch"

    crop_size: int
    """Side in pixels."""
    fill: tuple[int, ...]
    """Colour around an image that is smaller than the crop."""
    jitter: tuple[float, float, float, float]
    seed: int
    max_side: int
    """Longer images are reduced to this long side, in pixels."""
    windows: Images | None = None
    """How TIFF files are read by windows; None reads every image as a whole."""
    recolours: bool = field(default=True, metadata=NOT_IN_DIGEST)
    """Changes the crops' colours; false leaves the same change to the reader, as `colours`."""

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches all files of all rows at once: from an object store, waiting takes most of the time."""
        wanted = {uri for row in rows if row.get("error_stage") is None for uri in self.files(row)}
        scenes = self.scenes(rows)
        contents = storage.read_many(wanted - scenes.keys())
        return super().process_all([row | {"contents": contents, "scenes": scenes} for row in rows])

    def scenes(self, rows: Sequence[Row]) -> dict[str, Scene | Exception]:
        """The rows' images that are read by windows."""
        if self.windows is None:
            return {}
        uris = (row["image_uri"] for row in rows if row.get("error_stage") is None and row["image_uri"])
        return find_scenes(uris, self.windows)

    def process(self, row: Row) -> Row:
        """Makes one crop.

        Raises:
            ValueError: (or an OSError) a file can't be fetched or decoded, or isn't the image's; `image_uri` is empty.
        """
        if not row["image_uri"]:
            raise ValueError("image_uri is empty; give the image's path or URI")
        rng = augmentation_rng(self.seed, row["epoch"], row["image_id"], repeat=row["repeat"])
        scene = (row["scenes"] if "scenes" in row else self.scenes([row])).get(row["image_uri"])
        if isinstance(scene, Exception):
            raise scene
        if scene is not None and scene.tiled:
            crop = self.augment_scene(scene, row, rng)
        else:
            crop = self.augment(self._whole(scene, row), row, rng)
        change = draw_colour_change(rng, crop.inside, strength=self.jitter)
        target = crop.target.tobytes()
        if not self.recolours:
            return {"crop": crop.pixels.tobytes(), "target": target, "colours": change._asdict()}
        changed = change_colours(torch.from_numpy(crop.pixels).permute(2, 0, 1), change)
        return {"crop": changed.permute(1, 2, 0).numpy().tobytes(), "target": target, "colours": None}

    def _whole(self, scene: Scene | None, row: Row) -> NDArray[np.uint8]:
        if scene is not None:
            return scene.reduced(self.max_side)
        return decode_image(fetched(row, row["image_uri"]), max_side=self.max_side).pixels

    def files(self, row: Row) -> Iterator[str]:
        """URIs of the files that a row's crop is made of, as far as the row names them."""
        if row["image_uri"]:
            yield row["image_uri"]

    @abstractmethod
    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Makes the crop of an image, and its target.

        `window` of the row, if there is one, is the part of a scene that the pixels are.
        """

    def augment_scene(self, scene: Scene, row: Row, rng: np.random.Generator) -> Crop:
        """Makes the crop of a tile that is drawn at random: what is known of each pixel holds in any part."""
        window = scene.draw_tile(rng)
        return self.augment(scene.read(*window.cut()), row | {"window": window}, rng)


def fetched(row: Row, uri: str) -> bytes:
    """A file's content, which was fetched with those of other rows.

    Raises:
        OSError: (or a ValueError) it couldn't be fetched.
    """
    contents: dict[str, bytes | Exception] = row.get("contents", {})
    content = contents[uri] if uri in contents else storage.read_bytes(uri)
    if isinstance(content, Exception):
        raise content
    return content


@dataclass(kw_only=True)
class LoadClassifierCrops(LoadCrops):
    """Target: (C,) multi-hot labels."""

    classes: tuple[str, ...]
    long_side: tuple[int, int]
    """Range of the random long side in pixels, before the crop."""

    reads: ClassVar[tuple[str, ...]] = ("image_id", "image_uri", "labels", "epoch", "repeat")

    def augment(self, pixels: NDArray[np.uint8], row: Row, rng: np.random.Generator) -> Crop:
        """Random size, crop and mirror."""
        placed = ResizedCrop.draw(pixels.shape, rng, crop=self.crop_size, long_side=self.long_side)
        return Crop(placed.lay_image(pixels, fill=self.fill), placed.inside, self.multi_hot(row["labels"]))

    def augment_scene(self, scene: Scene, row: Row, rng: np.random.Generator) -> Crop:
        """A montage of the whole scene, reduced, and of three tiles that are drawn at random.

        Labels of a scene don't hold in each of its tiles. They hold for the montage, which contains the scene: what it
        hasn't isn't in the tiles, and what it has is in the montage. Tiles are seen as ordinary images are, at the
        scales at which maps are made of them.
        """
        side = self.crop_size // 2
        whole = scene.reduced(side)
        placed = ResizedCrop.draw(whole.shape, rng, crop=side, long_side=(side, side))
        quarters = [placed.lay_image(whole, fill=self.fill)]
        for _ in range(3):
            pixels = scene.read(*scene.draw_tile(rng).cut())
            placed = ResizedCrop.draw(pixels.shape, rng, crop=side, long_side=self.long_side)
            quarters.append(placed.lay_image(pixels, fill=self.fill))
        order = rng.permutation(4).tolist()
        rows = [np.concatenate([quarters[index] for index in pair], axis=1) for pair in (order[:2], order[2:])]
        inside = (0, 0, self.crop_size, self.crop_size)
        return Crop(np.concatenate(rows), inside, self.multi_hot(row["labels"]))

    def multi_hot(self, labels: Sequence[str]) -> NDArray[np.uint8]:
        """(C,), 1 for each class that the image shows."""
        target = np.zeros(len(self.classes), dtype=np.uint8)
        target[[class_id - 1 for class_id in class_ids_of(labels, self.classes)]] = 1
        return target
