"""Keeps what one row or one node does to a process from the other rows, and from the run.

The run's watch says how a block is to be computed: as usual, row by row where a process has died on it, or not at all
on a sick node.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.cluster.calls import Call, Orders
from raypipe.cluster.health import NODE_ID
from raypipe.faults import blame, in_words
from raypipe.outputs.sink import PART, ShardWriter
from raypipe.progress import working
from raypipe.stages.base import LONGEST_REASON
from raypipe.streams.guard import Gate, Guard, SickNode
from raypipe.streams.job import Job, Process
from raypipe.streams.local_files import check_error, check_out, check_rows

logger = logging.getLogger(__name__)


class Again(RuntimeError):  # noqa: N818 - says what is to be done
    """What failed may pass when it is tried once more, after a while."""


@contextmanager
def reported(guard: Guard, *, job: str, pool: str, block: str) -> Iterator[None]:
    """Reports whether work that is no row's gets through, such as reading a part of the manifest, and what goes wrong.

    Raises:
        Again: if the same may pass later.
        SickNode: if it can't pass on this node.
    """
    call, _ = guard.begin(job=job, pool=pool, block=block, rows=[])
    try:
        try:
            yield
        except Exception as error:
            check_error(guard, error)
            raise
    except Exception as error:
        if blame(error) == "node" and guard.fault(call, in_words(error), of_device=False) == "sick":
            raise SickNode(f"{guard.node()}: {in_words(error)}") from error
        guard.end(call, "failed")
        if blame(error) in ("node", "storage"):
            raise Again(in_words(error)) from error
        raise
    guard.end(call, "passed")


class Containment:
    """A process with a guard."""

    def __init__(self, process: Process, guard: Guard) -> None:
        self.process, self.guard, self.gate = process, guard, Gate()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Runs the stages on whole rows, and writes them as `Process.written` does.

        Raises:
            Again: if the same may pass later.
            SickNode: if it can't pass on this node.
        """
        rows = table["image_id"].to_pylist()
        guard = self.guard
        call, orders = guard.begin(
            job=self.process.job.name, pool=self.process.job.pool.name, block=_block_of(table), rows=rows
        )
        table = self._without_convicted(table, orders)
        try:
            with self.gate.entered(alone=orders.alone), working():
                done = self._one_by_one(table, call, orders) if orders.alone else self.process.run(table)
            check_rows(guard, table, done)
            if self.process.job.writer is not None:
                check_out(self.process.job.writer)
            written = self.process.written(done)
        except Exception as error:
            kind = blame(error)
            if kind in ("node", "device"):
                return self._doubtful(table, call, error, of_device=kind == "device")
            guard.end(call, "failed")
            if kind == "storage":
                raise Again(in_words(error)) from error
            raise  # no row's, for those are in quarantine
        guard.end(call, "passed" if done["error_stage"].null_count else "done")
        return written

    def _without_convicted(self, table: pa.Table, orders: Orders) -> pa.Table:
        """Puts the rows in error that must not be tried."""
        reasons = [orders.convicted.get(image_id) for image_id in table["image_id"].to_pylist()]
        return table if not any(reasons) else failed(table, self.process.job.pool.name, reasons)

    def _one_by_one(self, table: pa.Table, call: Call, orders: Orders) -> pa.Table:
        """Runs each row alone, so that a process which dies is known to have died on it."""
        guard = self.guard
        rows = table["image_id"].to_pylist()
        done: dict[int, pa.Table] = {}
        for index in sorted(range(len(rows)), key=lambda i: (rows[i] not in orders.first, rows[i] in orders.last)):
            if not table["error_stage"][index].is_valid:  # what is in error already gets through anything
                guard.alone(call, rows[index])
            done[index] = self.process.run(table.slice(index, 1))
        guard.alone(call, None)
        return pa.concat_tables(done[index] for index in range(len(rows)))

    def _doubtful(self, table: pa.Table, call: Call, error: Exception, *, of_device: bool) -> pa.Table:
        """After an error that may be the node's: tries again, or elsewhere, or gives the node up."""
        guard, reason = self.guard, in_words(error)
        verdict = guard.fault(call, reason, of_device=of_device)
        logger.warning("%s: %s", guard.node(), reason)
        if verdict == "sick":
            raise SickNode(f"{guard.node()}: {reason}") from error
        if of_device:
            os._exit(1)  # what is computed after such an error may be wrong; Ray starts another process
        if verdict == "elsewhere" and not self.process.job.on_gpu:
            try:
                return self._elsewhere(table, call, error)
            except Again:
                raise
            except Exception as other:
                raise Again(f"{reason}; elsewhere: {in_words(other)}") from other
        raise Again(reason) from error

    def _elsewhere(self, table: pa.Table, call: Call, error: Exception) -> pa.Table:
        """Rows as another node computes them, or, where there is none, another process.

        What fails there as well is the row's fault, if another row gets through there.
        """
        import ray

        guard, job = self.guard, replace(self.process.job, writer=None, indexed=None, rows_per_batch=None)
        job = replace(job, guard=None)
        writer = self.process.job.writer
        options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0}
        if others := guard.others():
            options["label_selector"] = {NODE_ID: f"in({','.join(others)})"}
        else:
            options["runtime_env"] = {"env_vars": {"RAYPIPE_FRESH_PROCESS": call.number}}
        trying = ray.remote(_each_alone).options(**options).remote(table, job)
        try:
            node, found, num_refused = ray.get(trying, timeout=2 * guard.row_timeout)
        except ray.exceptions.GetTimeoutError:
            ray.cancel(trying, force=True)
            raise
        one_passed = found["error_stage"].null_count > 0
        if num_refused and not one_passed and not guard.convicts(call, node):
            raise Again(in_words(error)) from error
        if writer is not None:
            there = {"num_cpus": 0, "label_selector": {NODE_ID: node}}
            found = ray.get(ray.remote(_write).options(**there).remote(writer, found))
        guard.settled(call)
        return cast(pa.Table, found)


def _each_alone(table: pa.Table, job: Job) -> tuple[str, pa.Table, int]:
    """Computes each row alone; this node, the rows, and how many of them failed as if it were the node's fault."""
    import ray

    process, done, num_refused = Process(job), [], 0
    for index in range(table.num_rows):
        row = table.slice(index, 1)
        try:
            done.append(process.run(row))
        except Exception as error:
            if blame(error) == "storage":
                raise
            reason = f"on several nodes or processes, where other rows get through: {in_words(error)}"
            done.append(process.run(failed(row, job.pool.name, [reason])))
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
