"""What is computed: a manifest that is made part by part, streams like those of seeds and masks, rows with little."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

import pyarrow as pa

from raypipe.artifacts import NOT_IN_DIGEST, Artifact
from raypipe.data.manifest import manifest_bytes
from raypipe.data.rows import Rows
from raypipe.outputs.load import Load
from raypipe.pipelines.context import MANIFEST_COLUMNS
from raypipe.schema import MANIFEST, MASKS, SEEDS, columns
from raypipe.stages.base import Kind, Row, Stage
from raypipe.stages.fetch import FetchImages
from raypipe.streams.plan import Plan
from simulator.store import Store

CLASSES = ("cat", "dog", "horse")
ROW_BYTES = {"seeds": 48_000, "masks": 115_000}
"""Of a row's output, as measured on photographs of PASCAL VOC's size."""

_RECENT = 24
"""Contents of a manifest's parts that are kept: the same part is read several times in a row."""


def write_manifest(store: Store, folder: str, *, rows: int, rows_per_part: int) -> None:
    """Adds a manifest whose parts are made when they are read.

    Args:
        store: to add it to.
        folder: path in the store.
        rows: number of rows.
        rows_per_part: of each part but the last.
    """

    @lru_cache(_RECENT)
    def content(start: int, number: int) -> bytes:
        return manifest_bytes(manifest_rows(start, number), CLASSES)

    @lru_cache
    def footer(number: int) -> bytes:
        return manifest_bytes(manifest_rows(0, number), CLASSES)

    for index, start in enumerate(range(0, rows, rows_per_part)):
        number = min(rows_per_part, rows - start)
        path = f"{folder}/part-{index:05d}.parquet"
        store.make(path, partial(content, start, number), partial(footer, number))


def manifest_rows(start: int, number: int, *, images: str = "s3://bucket/dataset/images") -> pa.Table:
    """Rows of a manifest; an id is its row's number."""
    names = [f"{index:010d}" for index in range(start, start + number)]
    return pa.table(
        {
            "image_id": names,
            "image_uri": [f"{images}/{name}.jpg" for name in names],
            "labels": pa.array([[CLASSES[index % 3]] for index in range(number)], pa.list_(pa.string())),
            "split": ["train"] * number,
        },
        schema=pa.schema([MANIFEST.field(name) for name in ("image_id", "image_uri", "labels", "split")]),
    )


def rows_of(parts: Sequence[object]) -> Rows:
    """The rows of a manifest's parts, with the columns that pipelines take."""
    return Rows(tuple(parts)).select(MANIFEST_COLUMNS)  # type: ignore[arg-type]


@dataclass(kw_only=True)
class _Sleeping(Stage):
    """Takes time and no CPU, so that two cores can stand for many cards."""

    seconds: float = field(default=0.0, metadata=NOT_IN_DIGEST)
    """A row."""
    row_bytes: int = field(default=0, metadata=NOT_IN_DIGEST)

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Sleeps for the rows."""
        time.sleep(self.seconds * len(rows))
        return super().process_all(rows)

    def payload(self) -> bytes:
        """A row's."""
        return os.urandom(self.row_bytes)


@dataclass(kw_only=True)
class MakeMaps(_Sleeping):
    """Stands for ComputeCams."""

    reads = ("image", "class_ids")
    writes = columns(SEEDS, "height", "width", "cam", "cam_height", "cam_width")

    @property
    def kind(self) -> Kind:
        """Holds a card."""
        return "device"

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {"height": 64, "width": 64, "cam": self.payload(), "cam_height": 16, "cam_width": 16}


@dataclass(kw_only=True)
class FinishSeeds(_Sleeping):
    """Stands for MakeTrimaps."""

    reads = ("cam",)
    writes = columns(SEEDS, "trimap")

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {"trimap": b"trimap"}


@dataclass(kw_only=True)
class WalkMaps(_Sleeping):
    """Stands for PropagateCams."""

    reads = ("image", "class_ids", "cam", "cam_height", "cam_width")
    writes = columns(MASKS, "walk_mask")

    @property
    def kind(self) -> Kind:
        """Holds a card."""
        return "device"

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {"walk_mask": b"mask"}


@dataclass(kw_only=True)
class FinishMasks(_Sleeping):
    """Stands for RefineMasks and EncodeMasks."""

    reads = ("image", "walk_mask")
    writes = columns(MASKS, *(name for name in MASKS.names if name not in ("image_id", "class_ids")))

    def process(self, row: Row) -> Row:
        """One row."""
        return {
            "height": 64,
            "width": 64,
            "mask": self.payload(),
            "confidence": b"confidence",
            "areas": [1.0],
            "mean_confidences": [1.0],
            "walk_mask": row["walk_mask"],
            "predicted_iou": 0.5,
            "walk_alpha": 16.0,
            "walk_steps": 256,
        }


def seeds_plan(*, card: float = 0.0, core: float = 0.0, row_bytes: int = 0) -> Plan:
    """A plan like that of seeds.

    Args:
        card: seconds of a row on a card.
        core: seconds of a row on a core afterwards.
        row_bytes: of a row's output.
    """
    stages = (FetchImages(classes=CLASSES), MakeMaps(seconds=card, row_bytes=row_bytes), FinishSeeds(seconds=core))
    return Plan(name="seeds", stages=stages, schema=SEEDS, classes=CLASSES)


def masks_plan(seeds: Artifact) -> Plan:
    """A plan like that of masks, which takes the maps of seeds."""
    maps = MakeMaps()
    load = Load(outputs=seeds, columns=columns(SEEDS, "cam", "cam_height", "cam_width"), part_of_plan=False)
    stages = (FetchImages(classes=CLASSES), maps, WalkMaps(), FinishMasks())
    return Plan(name="masks", stages=stages, schema=MASKS, classes=CLASSES, reuse=(maps, load))


def finished(rows: pa.Table, schema: pa.Schema, *, failing: float) -> pa.Table:
    """Rows as they come out of the last pool, with a payload of a few bytes.

    Args:
        rows: as they went in.
        schema: of the outputs.
        failing: share of the rows that is in error, by their ids.
    """
    number = rows.num_rows
    table = {name: rows[name] for name in rows.column_names}
    table |= {each.name: _constant(each.type, number) for each in schema if each.name not in rows.column_names}
    if failing:
        bad = [num_failing(int(name), 1, failing) for name in rows["image_id"].to_pylist()]
        for name, text in (("error_stage", "FetchImages"), ("error_reason", "ValueError: the image is cut off")):
            table[name] = pa.array([text if is_bad else None for is_bad in bad], pa.string())
    return pa.table(table)


def num_failing(first: int, rows: int, failing: float) -> int:
    """How many of some rows are in error.

    Args:
        first: number of the first row in the set.
        rows: how many there are from there on.
        failing: share of the set's rows that is in error.
    """
    if not failing:
        return 0
    every = round(1 / failing)
    before, after = ((number - 8) // every for number in (first, first + rows))
    return after - before


@lru_cache(64)
def _constant(kind: pa.DataType, number: int) -> pa.Array:
    if pa.types.is_list(kind):
        return pa.array([[1]] * number, kind)
    return pa.array([b"map" if pa.types.is_binary(kind) else 1] * number, kind)
