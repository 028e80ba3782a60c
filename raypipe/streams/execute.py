"""Runs a plan's pools on Ray Data. The only place that calls `map_batches`.

A pool that holds GPUs is a pool of actors. All others are tasks: Ray keeps the processes of tasks, so that the next
stream finds them with everything imported.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pyarrow as pa

from raypipe.cluster.health import sick_nodes, the_watch, without_nodes
from raypipe.cluster.resources import PoolPlan
from raypipe.data.blocks import cut, pack, unpack
from raypipe.outputs.sink import ShardWriter
from raypipe.screen.worker import in_worker
from raypipe.stages.base import with_error_columns
from raypipe.streams.containment import Again, reported
from raypipe.streams.guard import Guard
from raypipe.streams.job import Job, PackedPool
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker, work, work_in_batches

_RETRIED = (f"{Again.__name__}: ",)
"""What may pass, in the words of Ray Data's error messages, which it searches for anywhere in them."""

MAX_RETRIES = 8
"""Tries after the first. Ray Data waits a random part of 2, 4, 8 ... 32 seconds before each: together they last about a
minute on average, and a shorter outage is survived."""

CALLS_PER_ACTOR = 2
"""Blocks that an actor takes at a time: one is decoded while the networks work on the other."""


PARTS_AT_A_TIME = 8
"""Parts that are read at a time: enough of them feed any cluster, and those that were begun are settled the sooner."""

_CPUS_TO_READ = 0.01
"""Of a task that reads a part of the manifest: it waits for storage, and must not wait for those that wait for it."""


@dataclass(frozen=True)
class Parts:
    """Rows that tasks read."""

    names: tuple[str, ...]
    read: Callable[[str], Iterator[pa.Table]]
    """The rows of a name, a table at a time."""


def execute(
    rows: pa.Table | Sequence[pa.Table] | Parts,
    pools: Sequence[tuple[Pool, PoolPlan]],
    *,
    rows_per_block: int,
    writer: ShardWriter | None = None,
    indexed: Any = None,
    rows_per_batch: int | None = None,
    in_order: bool = False,
    row_timeout: float = 600,
) -> Iterator[pa.Table]:
    """Runs rows through pools, on nodes that aren't sick, and yields what comes out of the last one, block by block.

    Args:
        rows: a table, which is cut into blocks; or the blocks; or parts that tasks read.
        pools: in order, with their resources.
        rows_per_block: rows that go through the pools together, and become a shard; more where `cut` says so.
        writer: writes the rows where the last pool's work is done; what is yielded then are their numbers.
        indexed: reference to a table in Ray's object store, whose rows the source names by `INDEX`; its columns come to
            those of the source where the first pool's work begins, and no row travels before.
        rows_per_batch: yields batches of so many rows, each when it is done, and not when its block is; there is one
            pool, without GPUs, and whole batches make a block. None yields blocks.
        in_order: yields blocks in the order of the rows.
        row_timeout: seconds without progress after which a process is ended, and its rows are tried alone.

    Raises:
        SickNode: (as the cause of what Ray raises) if rows can't be computed on a node, which the run's watch names.
    """
    import ray.data  # takes seconds

    from raypipe.streams.calm import Calm

    context = ray.data.DataContext.get_current().copy()
    context.retried_map_errors = list(_RETRIED)
    context.max_map_retries = MAX_RETRIES
    context.execution_options.preserve_order = in_order
    context.execution_options.label_selector = without_nodes(sick_nodes()) or None
    # They advise every half minute to reserve memory for tasks that read a part of the manifest.
    context.issue_detectors_config.detectors = []
    context.custom_execution_callback_classes = [*context.custom_execution_callback_classes, Calm]
    if rows_per_batch is not None:
        context.target_max_block_size = 1  # a packed batch, which is a row, leaves its task at once
    context.enable_progress_bars = False  # rows are counted by who asks for them
    if isinstance(rows, pa.Table):
        rows = list(cut(with_error_columns(rows), rows_per_block))
    guard = Guard(the_watch(), row_timeout)
    with ray.data.DataContext.current(context):
        # Not `from_arrow`, which has a task on the cluster look at each block: a million rows wait minutes for them.
        packed = isinstance(rows, Parts)
        dataset = _read(rows, guard) if isinstance(rows, Parts) else ray.data.from_blocks(list(rows))
        most = None if isinstance(rows, Parts) else len(rows)
        for number, (pool, resources) in enumerate(pools, start=1):
            job = Job(
                name=uuid4().hex,
                pool=PackedPool.of(pool),
                on_gpu=resources.gpus > 0,
                threads=resources.threads,
                writer=writer if number == len(pools) else None,
                indexed=indexed if number == 1 else None,
                rows_per_batch=rows_per_batch if number == len(pools) else None,
                guard=guard,
            )
            size = 1 if packed and number == 1 else rows_per_block
            dataset = _map(dataset, job, resources, num_blocks=most, rows_at_a_time=size)
    found = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
    yield from found if rows_per_batch is None else map(unpack, found)


def _read(parts: Parts, guard: Guard) -> Any:
    """A dataset with one row a block of the parts' rows: Ray Data would cut and join the rows as it likes."""
    import ray.data

    job = uuid4().hex

    def read(table: pa.Table) -> Iterator[pa.Table]:
        in_worker()
        for name in table["part"].to_pylist():
            with reported(guard, job=job, pool="read", block=name):
                yield from map(pack, parts.read(name))

    names = ray.data.from_blocks([pa.table({"part": [name]}) for name in parts.names])
    tasks = ray.data.TaskPoolStrategy(size=min(PARTS_AT_A_TIME, len(parts.names)))
    blocks = names.map_batches(read, batch_format="pyarrow", batch_size=None, compute=tasks, num_cpus=_CPUS_TO_READ)
    blocks = blocks.repartition(target_num_rows_per_block=1)
    # `repartition` takes no resources, and left alone its tasks want a CPU each, for which they would wait while actors
    # hold them all.
    blocks._logical_plan.dag.ray_remote_args.update(num_cpus=_CPUS_TO_READ)
    return blocks


def _map(dataset: Any, job: Job, resources: PoolPlan, *, num_blocks: int | None, rows_at_a_time: int) -> Any:
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    def least(actors: int) -> int:
        return actors if num_blocks is None else min(actors, num_blocks)

    options: dict[str, Any] = {"batch_format": "pyarrow", "num_cpus": resources.cpus}
    if resources.memory is not None:
        options["memory"] = resources.memory
    if not job.on_gpu:

        def run(table: pa.Table) -> pa.Table | Iterator[pa.Table]:
            in_worker()
            return work(table, job) if job.rows_per_batch is None else work_in_batches(table, job)

        run.__name__ = job.pool.name  # what the dashboard shows
        tasks = TaskPoolStrategy(size=least(resources.max_actors))
        return dataset.map_batches(run, compute=tasks, batch_size=None, **options)
    actors = ActorPoolStrategy(
        min_size=least(resources.min_actors),
        max_size=least(resources.max_actors),
        max_concurrent_calls_per_actor=CALLS_PER_ACTOR,
        enable_true_multi_threading=True,
    )
    named = type(job.pool.name, (Worker,), {})
    return dataset.map_batches(
        named,
        fn_constructor_kwargs={"job": job},
        compute=actors,
        batch_size=rows_at_a_time,  # with GPUs Ray Data takes no whole blocks
        num_gpus=resources.gpus,
        **options,
    )
