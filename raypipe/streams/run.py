"""Runs a stream so that no row is lost, none is computed twice, and an interrupted run goes on where it was."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.schema import CLASSES_KEY, PROVENANCE_KEY, QUARANTINE
from raypipe.streams import plan as graph
from raypipe.streams.budget import BudgetExceeded, allowed_rows, start_count
from raypipe.streams.records import Record, open_folder, read_summary, write_summary
from raypipe.streams.sink import QUARANTINED, SHARDS, ShardSink, drop_doubled

NUM_BLOCKS = 128
"""So many blocks keep all actors of a stream at work to its end; more of them only cost time."""


class RowsLost(RuntimeError):  # noqa: N818 - says what happened
    """Finished and quarantined rows don't add up to the manifest's: a defect, never a user's mistake."""


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """What a stream did."""

    num_rows: int
    num_finished: int
    num_quarantined: int
    num_computed: int
    """Rows of the last run; the others were done before."""
    seconds: float
    """Wall time of the last run."""

    def __str__(self) -> str:
        return (
            f"{self.num_finished} of {self.num_rows} rows finished, {self.num_quarantined} quarantined; "
            f"{self.num_computed} computed in {self.seconds:.0f} s"
        )


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream's fixed parts: where its outputs go and in which form."""

    record: Record
    out: str
    schema: pa.Schema
    classes: tuple[str, ...]
    budget: Budget
    rows_per_shard: int
    png_column: str | None = None
    autoscaling: bool = False

    @property
    def folder(self) -> str:
        """The output folder's URI."""
        return self.record.folder(self.out)


@dataclass(frozen=True)
class Part:
    """Rows that take the same stages."""

    rows: pa.Table
    """The source, with an `image_id` that no other row of the stream has."""
    steps: Sequence[graph.Step]


def run_stream(stream: Stream, *parts: Part) -> StreamSummary:
    """Computes the rows that aren't done yet and checks that all are accounted for.

    Raises:
        BudgetExceeded: if too many rows are in quarantine.
        MixedOutputs: if the folder holds outputs of another config.
    """
    for part in parts:
        graph.check(part.rows.column_names, part.steps)
    folder = open_folder(stream.record, stream.out)
    if (finished := read_summary(folder)) is not None:
        return StreamSummary(**finished)
    started = time.monotonic()
    image_ids = pa.chunked_array([chunk for part in parts for chunk in part.rows["image_id"].chunks], pa.string())
    done = _read_done(stream)
    count = start_count(stream.budget, num_rows=len(image_ids), known=len(done.quarantined))
    num_computed = 0
    for part in parts:
        todo = part.rows.filter(pc.invert(pc.is_in(part.rows["image_id"], pc.unique(done.image_ids))))
        if todo.num_rows:
            try:
                _compute(stream, todo, part.steps, count)
            except Exception:
                _check_budget(stream, len(image_ids))  # which says more than the task that ended the stream
                raise
        num_computed += todo.num_rows
    done = _read_done(stream)
    if len(pc.unique(done.image_ids)) < len(done.image_ids):
        drop_doubled(stream.folder)
        done = _read_done(stream)
    summary = StreamSummary(
        num_rows=len(image_ids),
        num_finished=len(done.finished),
        num_quarantined=len(done.quarantined),
        num_computed=num_computed,
        seconds=round(time.monotonic() - started, 2),
    )
    _check_accounts(stream, summary, done.image_ids, image_ids)
    _check_budget(stream, len(image_ids))
    write_summary(folder, asdict(summary))
    return summary


def _compute(stream: Stream, rows: pa.Table, steps: Sequence[graph.Step], count: Any) -> None:
    metadata = {
        CLASSES_KEY: json.dumps(list(stream.classes), ensure_ascii=False).encode(),
        PROVENANCE_KEY: json.dumps(stream.record.provenance(), default=str).encode(),
    }
    sink = ShardSink(
        stream.folder,
        stream.schema.with_metadata(metadata),
        rows_per_shard=stream.rows_per_shard,
        png_column=stream.png_column,
        count=count,
    )
    size = rows_per_block(rows.num_rows, rows_per_shard=stream.rows_per_shard)
    dataset = graph.apply(graph.source(rows, rows_per_block=size), steps, autoscaling=stream.autoscaling)
    dataset.write_datasink(sink)


def rows_per_block(num_rows: int, *, rows_per_shard: int) -> int:
    """Rows that go through the stages together: few in a short stream, so that nobody waits, a shard's in a long one.

    A block costs some 10 ms a stage, however many rows are in it.
    """
    return min(rows_per_shard, max(8, num_rows // NUM_BLOCKS))


@dataclass(frozen=True)
class _Done:
    """Ids in a stream's shards: nothing else says what is done."""

    finished: pa.ChunkedArray
    quarantined: pa.ChunkedArray

    @property
    def image_ids(self) -> pa.ChunkedArray:
        return pa.chunked_array([*self.finished.chunks, *self.quarantined.chunks], pa.string())


def _read_done(stream: Stream) -> _Done:
    finished, quarantined = (
        read_shards(storage.join(stream.folder, kind), columns=["image_id"], schema=QUARANTINE)["image_id"]
        for kind in (SHARDS, QUARANTINED)
    )
    return _Done(finished, quarantined)


def _check_accounts(stream: Stream, summary: StreamSummary, done: pa.ChunkedArray, image_ids: pa.ChunkedArray) -> None:
    unique = pc.unique(done)
    if len(unique) != len(done) or set(unique.to_pylist()) != set(image_ids.to_pylist()):
        raise RowsLost(
            f"{stream.folder}: {summary.num_finished} finished + {summary.num_quarantined} quarantined rows "
            f"({len(unique)} different ids) for {summary.num_rows} rows"
        )


def _check_budget(stream: Stream, num_rows: int) -> None:
    quarantine = read_shards(storage.join(stream.folder, QUARANTINED), schema=QUARANTINE)
    allowed = allowed_rows(stream.budget, num_rows)
    if quarantine.num_rows > allowed or (num_rows and quarantine.num_rows == num_rows):
        first = "; ".join(f"{row['image_id']}: {row['reason']}" for row in quarantine.slice(0, 3).to_pylist())
        raise BudgetExceeded(
            f"{quarantine.num_rows} of {num_rows} rows are in quarantine, allowed are {allowed}. "
            f"First: {first}. All: {storage.join(stream.folder, QUARANTINED)}; mend the rows and delete that folder "
            "to try them again, or raise budget.max_rows"
        )
