"""A worker process of a pool."""

import math
from collections.abc import Iterator

import pyarrow as pa

from raypipe.data.blocks import pack
from raypipe.streams.containment import Containment
from raypipe.streams.job import Job, Process

_ROWS_AT_A_TIME = 16
"""Rows of small batches that are worked on together: their files are fetched at once."""


class Worker:
    """A process that has set up a job."""

    def __init__(self, job: Job) -> None:
        self.job, self.process = job, Process(job)
        self.contained = None if job.guard is None else Containment(self.process, job.guard)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Runs the stages on rows; returns them, or, where they are written, how many there were."""
        table = self.process.whole(table)
        if self.contained is not None:
            return self.contained(table)
        return self.process.written(self.process.run(table))


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
