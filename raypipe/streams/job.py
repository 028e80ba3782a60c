"""A job, and a process that has set it up: it runs a pool's stages, and writes what comes out of the last pool."""

import logging
import os
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from threading import Lock
from typing import Any

import pyarrow as pa

from raypipe.data.blocks import unpack
from raypipe.faults import blame, in_words
from raypipe.outputs.sink import ShardWriter
from raypipe.progress import tick, waiting, working
from raypipe.stages.base import run_stages, with_error_columns
from raypipe.streams.guard import SETUP, Guard
from raypipe.streams.metrics import Meter
from raypipe.streams.plan import Pool

logger = logging.getLogger(__name__)

GPU_DEVICE = "RAYPIPE_GPU_DEVICE"
"""Environment variable that names the device which stands for a GPU: tests whose GPUs are only said to be there give
"cpu"."""

INDEX = "index"
"""Column of a source that names the rows of an indexed table."""


@dataclass(frozen=True)
class PackedPool:
    """A pool as it travels to the processes that run it.

    Its stages import torch, which may fail or kill a process where a machine has another processor or a broken library.
    Ray would see that as the run's own error; so a process unpacks it where the run's watch sees what happens.
    """

    name: str
    data: bytes

    @classmethod
    def of(cls, pool: Pool) -> "PackedPool":
        """Packs a pool."""
        from ray import cloudpickle  # seconds, where Ray isn't there already

        return cls(pool.name, cloudpickle.dumps(pool))  # type: ignore[no-untyped-call]

    def unpack(self) -> Pool:
        """The pool, with stages that nobody has set up."""
        pool: Pool = pickle.loads(self.data)  # noqa: S301 - the driver's
        return pool


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a worker process does with the rows that it gets."""

    name: str
    """Unique: a process that has set up a job keeps its networks for the next rows."""
    pool: PackedPool
    on_gpu: bool
    threads: int
    """In which images are decoded."""
    writer: ShardWriter | None = None
    """Writes the rows; None hands them on."""
    indexed: Any = None
    """Reference to the table in Ray's object store that the rows' `INDEX` names rows of; None where they are whole."""
    rows_per_batch: int | None = None
    """Hands rows on in packed batches of so many, each when it is done; None hands them on together."""
    guard: Guard | None = None
    """Tells the run's watch what happens; None, without Ray, tells nobody."""


class Process:
    """A process that has set up a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.setting_up, self.is_set_up = Lock(), False
        guard = job.guard
        try:
            with nullcontext() if guard is None else guard.starting(job=job.name, pool=job.pool.name):
                self.set_up()
        except Exception as error:
            if guard is None or blame(error) == "row":
                raise
            logger.warning("tried again with the first rows: %s", in_words(error))
        self.threads = ThreadPoolExecutor(max(2, job.threads), thread_name_prefix="decode")
        self.turn, self.alone = Lock(), Lock()
        self.meter = Meter(job.pool.name, on_gpu=job.on_gpu)
        self.indexed: pa.Table | None = None
        if job.indexed is not None:
            import ray  # seconds, where it isn't there already

            self.indexed = ray.get(job.indexed)

    def set_up(self) -> None:
        """Loads networks, once. What fails here on a sick node is found out as what fails with its rows."""
        with waiting(), self.setting_up, working():
            if self.is_set_up:
                return
            tick(SETUP)
            job = self.job
            self.pool = job.pool.unpack()
            device = os.environ.get(GPU_DEVICE, "cuda") if job.on_gpu else "cpu"
            if device == "cuda":
                from raypipe.networks.cuda import arrange_cuda  # torch takes seconds

                arrange_cuda()
            _use_one_thread()
            for stage in self.pool.stages:
                stage.setup(device)
            _use_one_thread()
            self.is_set_up = True
            tick("")

    def whole(self, table: pa.Table) -> pa.Table:
        """The rows that a table stands for, with error columns."""
        table = unpack(table)
        if self.indexed is not None:
            source, table = table, self.indexed.take(table[INDEX])
            for name in source.column_names:
                table = table.append_column(name, source[name])
        return with_error_columns(table)

    def run(self, table: pa.Table) -> pa.Table:
        """Runs the stages on whole rows.

        Calls may overlap: the stages of one run while those that may run ahead are at work for the other.
        """
        self.set_up()
        return run_stages(
            self.pool.stages,
            table,
            keep=self.pool.keep,
            threads=self.threads,
            turn=self.turn,
            alone=self.alone,
            measure=self.meter.measure,
        )

    def written(self, done: pa.Table) -> pa.Table:
        """Writes rows, and returns how many they are; or returns them where none are written here."""
        writer = self.job.writer
        result = done if writer is None else writer.write(done)
        self.meter.tell(stream=None if writer is None else writer.stream, rows=done)
        return result


def _use_one_thread() -> None:
    """Sums of several of torch's threads are rounded in another order, so that a mask would depend on their number."""
    if (torch := sys.modules.get("torch")) is not None:  # pools without networks do without its import
        torch.set_num_threads(1)
