"""What a training worker reads: its part of every batch in the order of the epochs, and images to validate on."""

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.cluster.resources import PoolPlan
from raypipe.config import RunConfig, Training
from raypipe.pipelines.steps import fetching
from raypipe.schema import SHARD_URI
from raypipe.stages.crops import LoadCrops
from raypipe.stages.true_masks import LoadTrueMasks
from raypipe.streams.execute import execute
from raypipe.streams.job import INDEX
from raypipe.streams.plan import Plan, Pool
from raypipe.training.order import Position, worker_draws

if TYPE_CHECKING:
    from raypipe.training.loop import Feed
    from raypipe.training.validation import ValidationFeed

DRAWN = ("epoch", "repeat")
"""Columns that the order of the epochs adds to the rows."""

_ROWS_PER_STREAM = 200_000
"""Epochs are loaded by one stream together up to here: a stream costs a second to start."""

_ROWS_PER_BLOCK = 256
"""Draws that go to a loader together: each block costs some 10 ms and an object of Ray's."""

_BLOCKS_PER_LOADER = 4
"""Blocks of a loader in a short stream, at least: with fewer, loaders would wait for the last one of them."""


def processes(name: str, *, actors: int, cpus: float) -> PoolPlan:
    """The processes beside one training worker that read for it."""
    return PoolPlan(
        name=name, kind="finish", min_actors=1, max_actors=actors, cpus=cpus, gpus=0, threads=1, memory=None
    )


def rows_to_feed(rows: pa.Table, crops: LoadCrops) -> pa.Table:
    """What crops read of the rows, in few bytes: many rows lie in one shard, whose URI is held once."""
    rows = rows.select([name for name in crops.reads if name in rows.column_names])
    for index, name in enumerate(rows.column_names):
        if name.endswith(SHARD_URI):
            rows = rows.set_column(index, name, rows[name].dictionary_encode())
    return rows.combine_chunks()


def make_feed(
    rows: Any,
    crops: LoadCrops,
    training: Training,
    loaders: PoolPlan,
    *,
    row_timeout: float = 600,
    factors: NDArray[np.float64] | None = None,
) -> "Feed":
    """The function that a training worker calls for its batches.

    Args:
        rows: reference to the table in Ray's object store, as of `rows_to_feed`. A machine holds it once, for all
            workers and loaders.
        crops: the stage that makes crops.
        training: seed, epochs, batch size.
        loaders: resources of the processes that make crops for one worker.
        row_timeout: seconds without progress after which a loader is ended.
        factors: how often each image is drawn, relative to the others; None draws each once an epoch.
    """
    pool = Pool("finish", (crops,), ("image_id", *crops.writes.names))

    def feed(begin: Position, rank: int, world_size: int) -> Iterator[pa.Table]:
        import ray

        image_ids = ray.get(rows)["image_id"]
        section = training.section
        num_rows = len(range(rank, section.batch_size, world_size))  # this worker's part of a batch
        epochs_per_stream = max(1, _ROWS_PER_STREAM * world_size // len(image_ids))
        for start in range(begin.epoch, section.epochs, epochs_per_stream):
            parts = []
            for epoch in range(start, min(start + epochs_per_stream, section.epochs)):
                draws = worker_draws(
                    image_ids,
                    seed=training.seed,
                    epoch=epoch,
                    batch_size=section.batch_size,
                    rank=rank,
                    world_size=world_size,
                    factors=factors,
                )
                taken = begin.step * num_rows if epoch == begin.epoch else 0
                columns = tuple(column[taken:] for column in (*draws, np.full(len(draws[0]), epoch)))
                names = (INDEX, "repeat", "epoch")
                parts.append(pa.table([pa.array(column, pa.int32()) for column in columns], names=names))
            drawn = pa.concat_tables(parts)
            yield from execute(
                drawn,
                [(pool, loaders)],
                rows_per_block=_rows_per_block(drawn.num_rows, num_rows=num_rows, loaders=loaders.max_actors),
                rows_per_batch=num_rows,
                indexed=rows,
                in_order=True,
                row_timeout=row_timeout,
            )

    return feed


def _rows_per_block(num_draws: int, *, num_rows: int, loaders: int) -> int:
    """Whole parts of batches: `_ROWS_PER_BLOCK` rows, or fewer where a stream is too short for all loaders to share."""
    steps = num_draws // num_rows
    return num_rows * min(math.ceil(_ROWS_PER_BLOCK / num_rows), max(1, steps // (_BLOCKS_PER_LOADER * loaders)))


_VALIDATED = pa.schema([("image_id", pa.string()), ("image", pa.binary()), ("mask", pa.binary())])
"""Columns of what is validated."""


def make_validation_feed(rows: Any, actors: PoolPlan, config: RunConfig, *, num_classes: int) -> "ValidationFeed":
    """The function that a training worker calls for the images that it validates on.

    Args:
        rows: reference to a table in Ray's object store: `image_id, image_uri, mask_uri`.
        actors: resources of the processes that fetch for one worker.
        config: how images are read, and what is waited for.
        num_classes: with background.
    """
    stages = (fetching(config, classes=None), LoadTrueMasks(num_classes=num_classes))
    (pool,) = Plan(name="validation", stages=stages, schema=_VALIDATED, classes=()).pools(gpus=False)

    def feed(rank: int, world_size: int) -> Iterator[pa.Table]:
        import ray

        table: pa.Table = ray.get(rows)
        part = table.take(pa.array(range(rank, table.num_rows, world_size), pa.int64()))
        if part.num_rows:
            timeout = config.cluster.row_timeout
            yield from execute(part, [(pool, actors)], rows_per_block=8, row_timeout=timeout)

    return feed
