"""Runs a plan's pools on Ray Data. The only place that calls `map_batches`.

A pool that holds GPUs is a pool of actors. All others are tasks: Ray keeps the processes of tasks, so that the next
stream finds them with everything imported.
"""

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import uuid4

import pyarrow as pa

from raypipe.stages.base import with_error_columns
from raypipe.streams.plan import Pool
from raypipe.streams.resources import PoolPlan
from raypipe.streams.sink import ShardWriter
from raypipe.streams.worker import Job, Worker, unpack, work, work_in_batches

TRANSIENT = (r"(OSError|Connection\w*|Timeout\w*|Client\w*Error|ServerDisconnected\w*): ",)
"""What passes by itself: storage that is away or busy for a while. In the words of Ray Data's error messages."""

MAX_RETRIES = 8
"""Tries after the first. Ray Data waits a random part of 2, 4, 8 ... 32 seconds before each: together they last about a
minute on average, and a shorter outage is survived."""

CALLS_PER_ACTOR = 2
"""Blocks that an actor takes at a time: one is decoded while the networks work on the other."""


def execute(
    rows: pa.Table,
    pools: Sequence[tuple[Pool, PoolPlan]],
    *,
    rows_per_block: int,
    writer: ShardWriter | None = None,
    indexed: Any = None,
    rows_per_batch: int | None = None,
    in_order: bool = False,
    progress: bool = True,
) -> Iterator[pa.Table]:
    """Runs rows through pools and yields what comes out of the last one, block by block.

    Args:
        rows: the source.
        pools: in order, with their resources.
        rows_per_block: rows that go through the pools together, and become a shard.
        writer: writes the rows where the last pool's work is done; what is yielded then are their numbers.
        indexed: reference to a table in Ray's object store, whose rows the source names by `INDEX`; its columns come to
            those of the source where the first pool's work begins, and no row travels before.
        rows_per_batch: yields batches of so many rows, each when it is done, and not when its block is; there is one
            pool, without GPUs, and whole batches make a block. None yields blocks.
        in_order: yields blocks in the order of the rows.
        progress: shows a progress bar.
    """
    import ray.data  # takes seconds

    context = ray.data.DataContext.get_current().copy()
    context.retried_map_errors = list(TRANSIENT)
    context.max_map_retries = MAX_RETRIES
    context.execution_options.preserve_order = in_order
    if rows_per_batch is not None:
        context.target_max_block_size = 1  # a packed batch, which is a row, leaves its task at once
    context.enable_progress_bars = progress and context.enable_progress_bars
    rows = with_error_columns(rows)
    blocks = [rows.slice(start, rows_per_block) for start in range(0, rows.num_rows, rows_per_block)]
    with ray.data.DataContext.current(context):
        # Not `from_arrow`, which has a task on the cluster look at each block: a million rows wait minutes for them.
        dataset = ray.data.from_blocks(blocks)
        for number, (pool, resources) in enumerate(pools, start=1):
            job = Job(
                name=uuid4().hex,
                pool=pool,
                on_gpu=resources.gpus > 0,
                threads=resources.threads,
                writer=writer if number == len(pools) else None,
                indexed=indexed if number == 1 else None,
                rows_per_batch=rows_per_batch if number == len(pools) else None,
            )
            dataset = _map(dataset, job, resources, num_blocks=len(blocks), rows_per_block=rows_per_block)
    found = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    yield from found if rows_per_batch is None else map(unpack, found)


def _map(dataset: Any, job: Job, resources: PoolPlan, *, num_blocks: int, rows_per_block: int) -> Any:
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    options: dict[str, Any] = {"batch_format": "pyarrow", "num_cpus": resources.cpus}
    if resources.memory is not None:
        options["memory"] = resources.memory
    if not job.on_gpu:

        def run(table: pa.Table) -> pa.Table | Iterator[pa.Table]:
            return work(table, job) if job.rows_per_batch is None else work_in_batches(table, job)

        run.__name__ = job.pool.name  # what the dashboard shows
        tasks = TaskPoolStrategy(size=min(resources.max_actors, num_blocks))
        return dataset.map_batches(run, compute=tasks, batch_size=None, **options)
    actors = ActorPoolStrategy(
        min_size=min(resources.min_actors, num_blocks),
        max_size=min(resources.max_actors, num_blocks),
        max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
        enable_true_multi_threading=True,
    )
    named = type(job.pool.name, (Worker,), {})
    return dataset.map_batches(
        named,
        fn_constructor_kwargs={"job": job},
        compute=actors,
        batch_size=rows_per_block,  # with GPUs Ray Data takes no whole blocks
        num_gpus=resources.gpus,
        **options,
    )
