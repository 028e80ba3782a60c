"""The streams of commit ed14985; `latency.py` runs this in a process of its own, with that checkout on PYTHONPATH.

Pools and batches are those that its `masks_steps` has, but for actors of the network, of which it takes as many as
there are GPUs: there it was an option, and one by default.
"""

import os
import time
from collections.abc import Sequence
from typing import Annotated, Any

import pyarrow as pa
import ray
import typer

from latency_trees.rows import CLASSES, MAP_BYTES, MASK_BYTES, MOMENTS, manifest_rows, slept, tell
from raypipe import storage
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import with_shards
from raypipe.pipelines.graph import Step
from raypipe.pipelines.records import Record
from raypipe.pipelines.sink import SHARDS, ShardSink
from raypipe.pipelines.stream import Part, Stream, run_stream
from raypipe.schema import MASKS, SEEDS
from raypipe.stages.base import Row, Stage, with_error_columns
from raypipe.stages.decode import DecodeImages
from raypipe.stages.load import LoadCams

ROWS_PER_SHARD = 32
CPUS = 8


class Walk(Stage):
    """Stands for PropagateCams."""

    reads = ("image", "class_ids", "cam", "cam_height", "cam_width")
    writes = pa.schema([MASKS.field("walk_mask"), *MOMENTS])
    drops = ("cam", "cam_height", "cam_width")

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Sleeps for the rows."""
        moments = slept(len(rows))
        return [row | moments for row in super().process_all(rows)]

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {"walk_mask": b"mask"}


class Finish(Stage):
    """Stands for RefineMasks and EncodeMasks."""

    reads = ("image", "walk_mask")
    names = ("mask", "confidence", "areas", "mean_confidences", "predicted_iou")
    writes = pa.schema([MASKS.field(name) for name in names])
    drops = ("image",)

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        mask = os.urandom(MASK_BYTES)
        values = (mask, b"confidence", [1.0], [1.0], 0.5)
        return dict(zip(self.names, values, strict=True))


def main(
    step: Annotated[str, typer.Argument(help="seeds, whose maps the masks take, or masks")],
    out: str,
    number: int,
    gpus: int,
    uris: list[str],
) -> None:
    """Writes seeds as a long stream leaves them, or runs the masks."""
    rows = manifest_rows(uris, number)
    if step == "seeds":
        write_seeds(rows, out)
        return
    options = {"log_to_driver": False, "include_dashboard": False, "_memory": 64 * 2**30}
    ray.init(address="local", num_cpus=CPUS, num_gpus=gpus, object_store_memory=500_000_000, **options)
    pool: dict[str, Any] = {"num_actors": 1, "max_actors": CPUS}
    steps = [
        Step(stage=DecodeImages, args={"classes": CLASSES, "max_side": 1024}, batch_size=16, **pool),
        Step(stage=LoadCams, batch_size=8),
        Step(stage=Walk, num_actors=gpus, num_gpus=1, num_cpus=1, batch_size=4),
        Step(stage=Finish, batch_size=8, **pool),
    ]
    stream = Stream(
        record=Record(stage="masks", config={}, inputs={}),
        out=out,
        schema=pa.schema([*MASKS, *MOMENTS]),
        classes=CLASSES,
        budget=Budget(),
        rows_per_shard=ROWS_PER_SHARD,
    )
    begun = time.perf_counter()
    seeded, _ = with_shards(rows, storage.join(out, "seeds"))
    run_stream(stream, Part(seeded, steps))
    seconds = time.perf_counter() - begun
    ray.shutdown()
    tell(
        seconds,
        read_shards(storage.join(stream.folder, SHARDS), columns=["image_id", *MOMENTS.names], schema=stream.schema),
    )


def write_seeds(rows: pa.Table, out: str) -> None:
    """Shards of as many rows as a long stream writes together; a short one's are smaller."""
    sink = ShardSink(storage.join(out, "seeds"), SEEDS, rows_per_shard=ROWS_PER_SHARD)
    for start in range(0, rows.num_rows, ROWS_PER_SHARD):
        some = rows.slice(start, ROWS_PER_SHARD)
        maps = [os.urandom(MAP_BYTES) for _ in range(some.num_rows)]
        columns = {
            "image_id": some["image_id"],
            **{name: pa.array([16] * some.num_rows, pa.int32()) for name in ("height", "width")},
            "class_ids": pa.array([[1]] * some.num_rows, pa.list_(pa.uint8())),
            "cam": pa.array(maps, pa.binary()),
            **{name: pa.array([16] * some.num_rows, pa.int32()) for name in ("cam_height", "cam_width")},
            "trimap": pa.array([b"trimap"] * some.num_rows, pa.binary()),
        }
        sink.write([with_error_columns(pa.table(columns).cast(SEEDS))], None)


if __name__ == "__main__":
    typer.run(main)
