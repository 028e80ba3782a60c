"""Masks that a run has made, one by one as arrays, and together as Arrow."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Images
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.manifest import nearest
from raypipe.data.scenes import read_image
from raypipe.data.shards import Place, RowReader
from raypipe.outputs.ledger import SHARDS
from raypipe.outputs.load import Load
from raypipe.reports.pictures import draw_mask
from raypipe.schema import CLASSES_KEY, MASKS, SHARD_ROW, SHARD_URI
from raypipe.streams.collect import loaded_outputs

_MOST_NAMES = 5000
"""Ids among which the nearest to an unknown one is looked for."""


class NoMask(KeyError):  # noqa: N818 - says what isn't there, not that something is wrong
    """An image has no mask, with the reason."""

    def __str__(self) -> str:
        """The reason as it is: a KeyError would put quotes around it."""
        return str(self.args[0])


@dataclass(frozen=True, eq=False)
class Mask:
    """The mask of one image. Pictures are decoded when they are first asked for."""

    row: Mapping[str, Any] = field(repr=False)
    """The columns of `raypipe.schema.MASKS`, as they are stored."""
    classes: tuple[str, ...] = field(repr=False)
    """Class names of the class ids 1..C."""

    def __repr__(self) -> str:
        height, width = self.size
        shown = ", ".join(f"{name} {share:.0%}" for name, share in self.areas.items())
        return f"Mask({self.image_id!r}, {height} x {width}: {shown})"

    @property
    def image_id(self) -> str:
        """The image's id in the manifest."""
        return str(self.row["image_id"])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the image, as it is shown after EXIF rotation."""
        return self.row["height"], self.row["width"]

    @property
    def areas(self) -> dict[str, float]:
        """Share of the image of each class in the mask, by name, the background included; ignored pixels have none."""
        return dict(zip(self._names(), self.row["areas"], strict=True))

    @property
    def mean_confidences(self) -> dict[str, float]:
        """Mean confidence of each class in the mask, by name, 0..1."""
        return dict(zip(self._names(), self.row["mean_confidences"], strict=True))

    @property
    def predicted_iou(self) -> float | None:
        """An estimate of the walked mask's mean IoU that needs no true mask; None where no walk has made the mask."""
        found: float | None = self.row["predicted_iou"]
        return found

    @property
    def png(self) -> bytes:
        """The mask as an 8-bit grey PNG of class ids."""
        content: bytes = self.row["mask"]
        return content

    @cached_property
    def array(self) -> NDArray[np.uint8]:
        """Class ids (H, W): 0 background, 1..C the classes, 255 ignore."""
        return decode_mask(self.png, size=self.size)

    @cached_property
    def confidence(self) -> NDArray[np.uint8]:
        """Confidence (H, W) of each pixel; 255 is 1."""
        return decode_mask(self.row["confidence"], size=self.size)

    @cached_property
    def before_refinement(self) -> NDArray[np.uint8] | None:
        """Class ids (H, W) of the walk's own mask; None where nothing was refined."""
        stored = self.row["walk_mask"]
        return None if stored is None else decode_mask(stored, size=self.size)

    def draw(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Draws the classes in their colours, outlined, on the image in grey (H, W, 3); what is ignored is white.

        Args:
            pixels: the image (H, W, 3), at any scale: the mask follows.
        """
        return draw_mask(pixels, self.array)

    def _names(self) -> list[str]:
        return ["background" if class_id == 0 else self.classes[class_id - 1] for class_id in self.row["class_ids"]]


class Masks:
    """A run's masks: iterated over, looked up by id, or read as Arrow.

    Iteration goes from shard to shard, and a look-up reads the rows around the wanted one only, so neither needs more
    memory than some shards of 64 MB take. The ids of all images are in memory. An instance may be pickled, so it may
    stand in a PyTorch Dataset whose workers are processes.
    """

    def __init__(
        self,
        index: pa.Table,
        outputs: Artifact,
        classes: tuple[str, ...],
        images: Images,
        *,
        is_named: Callable[[str], bool] | None = None,
    ) -> None:
        """Takes what is known of the masks; `FinishedRun.masks` makes it.

        Args:
            index: `image_id`, `image_uri` and the columns of `outputs.load.with_places` of each image that has a mask.
            outputs: the masks' folder.
            classes: class names of the class ids 1..C.
            images: how images are read.
            is_named: whether the manifest has an image of an id: such an id isn't misspelt, if it has no mask.
        """
        self.classes = classes
        self._index, self._outputs, self._images = index, outputs, images
        self._is_named = is_named

    @property
    def uri(self) -> str:
        """The masks' folder."""
        return self._outputs.uri

    @property
    def glob(self) -> str:
        """Pattern of the finished shards, for DuckDB and others that read Parquet.

        While a run goes on, or after an interruption, some masks that are here aren't in these shards yet.
        """
        return storage.join(self.uri, SHARDS, "*", "*.parquet")

    @property
    def ids(self) -> list[str]:
        """The ids of the images that have a mask, in the manifest's order."""
        found: list[str] = self._index["image_id"].to_pylist()
        return found

    def __len__(self) -> int:
        return int(self._index.num_rows)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._numbers

    def __iter__(self) -> Iterator[Mask]:
        for table in self.tables():
            for row in table.to_pylist():
                yield Mask(row, self.classes)

    def __getitem__(self, image_id: str) -> Mask:
        """The mask of an image.

        Raises:
            NoMask: it has none.
        """
        place = Place(self._known(image_id, SHARD_URI), self._known(image_id, SHARD_ROW))
        return Mask(self._reader.read(place, columns=MASKS.names), self.classes)

    def image(self, image_id: str) -> NDArray[np.uint8]:
        """The image (H, W, 3) of a mask, RGB: of the mask's size, after EXIF rotation, transparency laid on white.

        With `images.bands` or `images.tile` it is reduced to `images.max_side`, as scenes may be of any size.

        Raises:
            NoMask: it has no mask.
            ValueError: it can't be decoded.
            OSError: it can't be fetched.
        """
        uri = self._known(image_id, "image_uri")
        if self._images.by_windows:
            return read_image(uri, self._images).pixels
        return decode_image(storage.read_bytes(uri), max_side=None).pixels

    def tables(self, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """Some hundred masks after the other, as Arrow, in the order of the shards.

        Args:
            columns: of `raypipe.schema.MASKS`, which alone are fetched; None takes all.

        Raises:
            ValueError: there is no such column.
            ShardError: a shard is damaged.
        """
        schema = self._schema(columns)
        fields = [each for each in schema if each.name != "image_id"]
        load = Load(outputs=self._outputs, columns=pa.schema(fields))
        for table in loaded_outputs(self._index, load, schema.names):
            yield table.select(schema.names).cast(schema)

    def to_arrow(self, columns: Sequence[str] | None = None) -> pa.Table:
        """All masks as one Arrow table; arguments and errors as of `tables`.

        The PNGs of a million images don't fit into memory: name the columns that are needed.
        """
        schema = self._schema(columns)
        return pa.concat_tables([schema.empty_table(), *self.tables(columns)])

    def _schema(self, columns: Sequence[str] | None) -> pa.Schema:
        names = list(MASKS.names if columns is None else columns)
        if unknown := [name for name in names if name not in MASKS.names]:
            raise ValueError(f"masks have no columns {unknown}; they have {MASKS.names}")
        metadata = {CLASSES_KEY: json.dumps(self.classes, ensure_ascii=False)}
        return pa.schema([MASKS.field(name) for name in names], metadata=metadata)

    def _known(self, image_id: str, column: str) -> Any:
        number = self._numbers.get(image_id)
        if number is None:
            is_there = self._is_named is not None and self._is_named(image_id)
            hint = "" if is_there else nearest(image_id, list(self._numbers)[:_MOST_NAMES])
            raise NoMask(f"{self.uri} has no mask of {image_id!r} (the run's `quarantine` lists what failed){hint}")
        return self._index[column][number].as_py()

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {image_id: number for number, image_id in enumerate(self.ids)}

    @cached_property
    def _reader(self) -> RowReader:
        return RowReader()

    def __getstate__(self) -> dict[str, Any]:
        """All but the reader, which holds a lock, and what reads the manifest."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_reader"}
        return kept | {"_is_named": None}
