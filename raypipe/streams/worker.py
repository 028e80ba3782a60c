"""Runs the stages of a pool in a worker process, and writes what comes out of the last pool."""

import math
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pyarrow as pa

from raypipe.data.blocks import pack, unpack
from raypipe.outputs.sink import ShardWriter
from raypipe.stages.base import run_stages
from raypipe.streams.metrics import Meter
from raypipe.streams.plan import Pool

GPU_DEVICE = "RAYPIPE_GPU_DEVICE"
"""Environment variable that names the device which stands for a GPU: tests whose GPUs are only said to be there give
"cpu"."""

INDEX = "index"
"""Column of a source that names the rows of an indexed table."""

_ROWS_AT_A_TIME = 16
"""Rows of small batches that are worked on together: their files are fetched at once."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker process does with the rows that it gets."""

    name: str
    """Unique: a process that has set up a job keeps its networks for the next rows."""
    pool: Pool
    on_gpu: bool
    threads: int
    """That networks and decoders may use."""
    writer: ShardWriter | None = None
    """Writes the rows; None hands them on."""
    indexed: Any = None
    """Reference to the table in Ray's object store that the rows' `INDEX` names rows of; None where they are whole."""
    rows_per_batch: int | None = None
    """Hands rows on in packed batches of so many, each when it is done; None hands them on together."""


class Worker:
    """A process that has set up a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        device = os.environ.get(GPU_DEVICE, "cuda") if job.on_gpu else "cpu"
        if device == "cuda":
            from raypipe.networks.cuda import arrange_cuda  # torch takes seconds

            arrange_cuda()
        for stage in job.pool.stages:
            stage.setup(device)
        if (torch := sys.modules.get("torch")) is not None:  # pools without networks do without its import
            torch.set_num_threads(job.threads)
        self.threads = ThreadPoolExecutor(max(2, job.threads), thread_name_prefix="decode")
        self.turn, self.alone = Lock(), Lock()
        self.meter = Meter(job.pool.name, on_gpu=job.on_gpu)
        self.indexed: pa.Table | None = None
        if job.indexed is not None:
            import ray  # seconds, where it isn't there already

            self.indexed = ray.get(job.indexed)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Runs the stages on rows; returns them, or, where they are written, how many there were.

        Calls may overlap: the stages of one run while those that may run ahead are at work for the other.
        """
        pool, table = self.job.pool, unpack(table)
        if self.indexed is not None:
            source, table = table, self.indexed.take(table[INDEX])
            for name in source.column_names:
                table = table.append_column(name, source[name])
        done = run_stages(
            pool.stages,
            table,
            keep=pool.keep,
            threads=self.threads,
            turn=self.turn,
            alone=self.alone,
            measure=self.meter.measure,
        )
        writer = self.job.writer
        result = done if writer is None else writer.write(done)
        self.meter.tell(stream=None if writer is None else writer.stream, rows=done)
        return result


_worker: Worker | None = None
"""The last job's, as long as the process lives: its tasks come one after the other."""


def work(table: pa.Table, job: Job) -> pa.Table:
    """Runs a job on rows in a task; the first task of a job in a process sets it up."""
    global _worker
    if _worker is None or _worker.job.name != job.name:
        _worker = None  # frees the networks of the job before
        _worker = Worker(job)
    return _worker(table)


def work_in_batches(table: pa.Table, job: Job) -> Iterator[pa.Table]:
    """Runs a job on rows in a task, and yields each batch as soon as it is done, as a row of its own.

    So batches stay whole whatever their bytes, also when the task is run again: Ray Data cuts what a task yields by
    bytes, and skips as many pieces as it has seen.
    """
    assert job.rows_per_batch is not None
    at_a_time = job.rows_per_batch * math.ceil(_ROWS_AT_A_TIME / job.rows_per_batch)
    for start in range(0, table.num_rows, at_a_time):
        done = work(table.slice(start, at_a_time), job)
        for first in range(0, done.num_rows, job.rows_per_batch):
            yield pack(done.slice(first, job.rows_per_batch))
