"""Runs the stages of a pool in a worker process, and writes what comes out of the last pool."""

import hashlib
import logging
import math
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.cluster.health import NODE_ID, without_nodes
from raypipe.cluster.watch import Call, Orders
from raypipe.data.blocks import pack, unpack
from raypipe.faults import blame, in_words
from raypipe.outputs.sink import PART, ShardWriter
from raypipe.progress import waiting, working
from raypipe.stages.base import LONGEST_REASON, run_stages, with_error_columns
from raypipe.streams.guard import Gate, Guard, SickNode
from raypipe.streams.plan import Pool

logger = logging.getLogger(__name__)

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
    guard: Guard | None = None
    """Tells the run's watch what happens; None, without Ray, tells nobody."""


class Again(RuntimeError):  # noqa: N818 - says what is to be done
    """What failed may pass when it is tried once more, after a while."""


class Worker:
    """A process that has set up a job."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.setting_up, self.is_set_up = Lock(), False
        try:
            self.set_up()
        except Exception as error:
            if job.guard is None or blame(error) == "row":
                raise
            logger.warning("tried again with the first rows: %s", in_words(error))
        self.threads = ThreadPoolExecutor(max(2, job.threads), thread_name_prefix="decode")
        self.turn, self.alone, self.gate = Lock(), Lock(), Gate()
        self.indexed: pa.Table | None = None
        if job.indexed is not None:
            import ray  # seconds, where it isn't there already

            self.indexed = ray.get(job.indexed)

    def set_up(self) -> None:
        """Loads networks, once. What fails here on a sick node is found out as what fails with its rows."""
        with waiting(), self.setting_up:
            if self.is_set_up:
                return
            job = self.job
            device = os.environ.get(GPU_DEVICE, "cuda") if job.on_gpu else "cpu"
            if device == "cuda":
                from raypipe.networks.cuda import arrange_cuda  # torch takes seconds

                arrange_cuda()
            for stage in job.pool.stages:
                stage.setup(device)
            if (torch := sys.modules.get("torch")) is not None:  # pools without networks do without its import
                torch.set_num_threads(job.threads)
            self.is_set_up = True

    def __call__(self, table: pa.Table) -> pa.Table:
        """Runs the stages on rows; returns them, or, where they are written, how many there were.

        Calls may overlap: the stages of one run while those that may run ahead are at work for the other.
        """
        table = unpack(table)
        if self.indexed is not None:
            source, table = table, self.indexed.take(table[INDEX])
            for name in source.column_names:
                table = table.append_column(name, source[name])
        table = with_error_columns(table)
        guard = self.job.guard
        if guard is None:
            return self._written(self._run(table))
        rows = table["image_id"].to_pylist()
        call, orders = guard.begin(job=self.job.name, pool=self.job.pool.name, block=_block_of(table), rows=rows)
        table = self._without_convicted(table, orders)
        try:
            with self.gate.entered(alone=orders.alone), working():
                done = self._one_by_one(table, call, orders) if orders.alone else self._run(table)
            written = self._written(done)
        except Exception as error:
            kind = blame(error)
            if kind in ("node", "device"):
                return self._doubtful(table, call, error, of_device=kind == "device")
            guard.end(call, passed=False)
            if kind == "storage":
                raise Again(in_words(error)) from error
            raise  # no row's, for those are in quarantine
        guard.end(call, passed=True)
        return written

    def _run(self, table: pa.Table) -> pa.Table:
        self.set_up()
        pool = self.job.pool
        return run_stages(pool.stages, table, keep=pool.keep, threads=self.threads, turn=self.turn, alone=self.alone)

    def _written(self, done: pa.Table) -> pa.Table:
        return done if self.job.writer is None else self.job.writer.write(done)

    def _without_convicted(self, table: pa.Table, orders: Orders) -> pa.Table:
        """Puts the rows in error that must not be tried."""
        reasons = [orders.convicted.get(image_id) for image_id in table["image_id"].to_pylist()]
        return table if not any(reasons) else failed(table, self.job.pool.name, reasons)

    def _one_by_one(self, table: pa.Table, call: Call, orders: Orders) -> pa.Table:
        """Runs each row alone, so that a process which dies is known to have died on it."""
        guard = self.job.guard
        assert guard is not None
        rows = table["image_id"].to_pylist()
        done: dict[int, pa.Table] = {}
        for index in sorted(range(len(rows)), key=lambda i: (rows[i] not in orders.first, rows[i] in orders.last)):
            if rows[index] not in orders.convicted:
                guard.alone(call, rows[index])
            done[index] = self._run(table.slice(index, 1))
        guard.alone(call, None)
        return pa.concat_tables(done[index] for index in range(len(rows)))

    def _doubtful(self, table: pa.Table, call: Call, error: Exception, *, of_device: bool) -> pa.Table:
        """After an error that may be the node's: tries again, or elsewhere, or gives the node up."""
        guard, reason = self.job.guard, in_words(error)
        assert guard is not None
        verdict = guard.fault(call, reason, of_device=of_device)
        logger.warning("%s: %s", guard.node(), reason)
        if verdict == "sick":
            raise SickNode(f"{guard.node()}: {reason}") from error
        if of_device:
            os._exit(1)  # what is computed after such an error may be wrong; Ray starts another process
        if verdict == "elsewhere" and not self.job.on_gpu:
            return self._elsewhere(table, call, error)
        raise Again(reason) from error

    def _elsewhere(self, table: pa.Table, call: Call, error: Exception) -> pa.Table:
        """Rows as another node computes them, or, where there is none, another process.

        What fails there as well, where others get through, is the row's fault.
        """
        import ray

        guard, job = self.job.guard, replace(self.job, writer=None, guard=None, indexed=None, rows_per_batch=None)
        assert guard is not None
        writer = self.job.writer
        sick = {call.node, *ray.get(guard.watch.sick.remote())}
        others = {node["NodeID"] for node in ray.nodes() if node["Alive"]} - sick  # type: ignore[no-untyped-call]
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0}
        if others:
            options["label_selector"] = without_nodes(sick)
        else:
            options["runtime_env"] = {"env_vars": {"RAYPIPE_FRESH_PROCESS": call.number}}
        node, found, num_refused = ray.get(ray.remote(_each_alone).options(**options).remote(table, job))
        if num_refused and node != call.node and not guard.passes(node, job.pool.name):
            raise Again(in_words(error)) from error
        if writer is not None:
            there = {"num_cpus": 0, "label_selector": {NODE_ID: node}}
            found = ray.get(ray.remote(_write).options(**there).remote(writer, found))
        return cast(pa.Table, found)


def _each_alone(table: pa.Table, job: Job) -> tuple[str, pa.Table, int]:
    """Computes each row alone; this node, the rows, and how many of them failed as if it were the node's fault."""
    import ray

    worker, done, num_refused = Worker(job), [], 0
    for index in range(table.num_rows):
        row = table.slice(index, 1)
        try:
            done.append(worker._run(row))
        except Exception as error:
            if blame(error) == "storage":
                raise
            reason = f"on several nodes or processes, where other rows get through: {in_words(error)}"
            done.append(worker._run(failed(row, job.pool.name, [reason])))
            num_refused += 1
    return str(ray.get_runtime_context().get_node_id()), pa.concat_tables(done), num_refused


def _write(writer: ShardWriter, table: pa.Table) -> pa.Table:
    return writer.write(table)


def failed(table: pa.Table, stage: str, reasons: Sequence[str | None]) -> pa.Table:
    """Puts the rows in error that have a reason."""
    has_reason = pa.array([reason is not None for reason in reasons])
    texts = pa.array([None if reason is None else reason[:LONGEST_REASON] for reason in reasons], pa.string())
    values = {"error_stage": pa.scalar(stage), "error_reason": texts}
    for name, value in values.items():
        column = pc.if_else(has_reason, value, table[name])
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _block_of(table: pa.Table) -> str:
    """Digest of what tells a block from others that are under way: its rows, and their draws in a training."""
    names = [name for name in ("image_id", PART, "epoch", "repeat") if name in table.column_names]
    return hashlib.sha256(repr(table.select(names).to_pydict()).encode()).hexdigest()[:16]


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
