"""Runs a stream so that no row is lost, none is computed twice, and an interrupted run goes on where it was."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.results import StreamSummary
from raypipe.schema import CLASSES_KEY, PROVENANCE_KEY, QUARANTINE, ROW_DIGEST
from raypipe.streams.budget import BudgetExceeded, allowed_rows
from raypipe.streams.execute import execute
from raypipe.streams.plan import Plan, Pool
from raypipe.streams.records import open_folder, read_summary, row_digests, write_summary
from raypipe.streams.resources import PoolPlan
from raypipe.streams.sink import QUARANTINED, SHARDS, ShardWriter, drop_rows
from raypipe.streams.waiting import watch_start

NUM_BLOCKS = 128
"""So many blocks keep all workers of a stream busy to its end; more of them only cost time."""

_LEAST_ROWS = 8
"""Of a block in a short stream."""


class RowsLost(RuntimeError):  # noqa: N818 - says what happened
    """Finished and quarantined rows don't add up to the manifest's: a defect, never a user's mistake."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a stream is run; nothing here changes an output."""

    out: str
    """Folder of the run."""
    budget: Budget
    rows_per_shard: int
    png_column: str | None = None
    """Column of PNG bytes that is also written as one file a row."""
    start_timeout: float = 600
    """Seconds in which nothing runs after which the stream ends."""


def run_stream(
    plan: Plan, rows: pa.Table, settings: Settings, pools: Sequence[tuple[Pool, PoolPlan]]
) -> tuple[Artifact, StreamSummary]:
    """Computes the rows that aren't done yet and checks that all are accounted for.

    A row is done when the folder holds its output, or its place in the quarantine, under the digest that it has now.
    Outputs of rows that aren't asked for stay where they are.

    Args:
        plan: what is computed.
        rows: the source, with an `image_id` that no other row has; rows in error go into quarantine as they are.
        settings: how.
        pools: of the plan, with their resources.

    Returns:
        The folder and what was done.

    Raises:
        BudgetExceeded: if too many rows are in quarantine.
        MixedOutputs: if the folder holds outputs that were made otherwise.
        NothingStarted: if nothing runs on the cluster for too long.
    """
    plan.check(rows.column_names)
    artifact = plan.artifact(settings.out)
    folder = artifact.uri
    open_folder(folder, plan.provenance())
    started = time.monotonic()
    rows = rows.append_column(ROW_DIGEST, row_digests(rows, plan.row_columns()))
    done = read_done(folder)
    todo = rows.filter(pc.invert(_among(rows, done.finished + done.quarantined)))
    num_quarantined = _count(rows, done.quarantined)
    if todo.num_rows:
        metadata = {
            CLASSES_KEY: json.dumps(list(plan.classes), ensure_ascii=False).encode(),
            PROVENANCE_KEY: json.dumps(plan.provenance(), default=str).encode(),
        }
        schema = plan.schema.append(pa.field(ROW_DIGEST, pa.string())).with_metadata(metadata)
        writer = ShardWriter(folder=folder, schema=schema, png_column=settings.png_column)
        size = rows_per_block(todo.num_rows, rows_per_shard=settings.rows_per_shard)
        with watch_start(plan.name, needs_of(pools), timeout=settings.start_timeout):
            for counts in execute(todo, pools, rows_per_block=size, writer=writer):
                num_quarantined += pc.sum(counts["num_quarantined"]).as_py()
                if num_quarantined > allowed_rows(settings.budget, rows.num_rows):
                    break
        done = read_done(folder)
    wanted = dict(zip(rows["image_id"].to_pylist(), rows[ROW_DIGEST].to_pylist(), strict=True))
    if _has_old_rows(done, wanted):
        drop_rows(folder, wanted)
        done = read_done(folder)
    _check_budget(folder, rows, settings.budget)
    finished, quarantined = _count(rows, done.finished), _count(rows, done.quarantined)
    if finished + quarantined != rows.num_rows:
        raise RowsLost(f"{folder}: {finished} finished + {quarantined} quarantined rows for {rows.num_rows} rows")
    summary = StreamSummary(
        num_rows=rows.num_rows,
        num_finished=finished,
        num_quarantined=quarantined,
        num_computed=todo.num_rows,
        seconds=round(time.monotonic() - started, 2),
    )
    before = read_summary(folder)
    if todo.num_rows or before is None or before["num_rows"] != summary.num_rows:
        write_summary(folder, asdict(summary))
    return artifact, summary


def needs_of(pools: Sequence[tuple[Pool, PoolPlan]]) -> str:
    """What pools need at least before a row can get through, in words."""
    return " and ".join(f"{each.min_actors} x ({each.cpus:g} CPUs, {each.gpus:g} GPUs)" for _, each in pools)


def rows_per_block(num_rows: int, *, rows_per_shard: int) -> int:
    """Rows that go through the pools together: few in a short stream, lest workers idle, a shard's in a long one."""
    return min(rows_per_shard, max(_LEAST_ROWS, num_rows // NUM_BLOCKS))


Keys = list[tuple[str, str]]
"""Image ids with the digests of the rows that outputs were made of."""


@dataclass(frozen=True)
class Done:
    """What the shards of a folder hold: nothing else says what is done."""

    finished: Keys
    quarantined: Keys


def read_done(folder: str) -> Done:
    """Reads the ids and row digests of a stream's shards."""
    finished, quarantined = (
        _keys(read_shards(storage.join(folder, kind), columns=["image_id", ROW_DIGEST], schema=QUARANTINE))
        for kind in (SHARDS, QUARANTINED)
    )
    return Done(finished, quarantined)


def _keys(rows: pa.Table) -> Keys:
    return list(zip(rows["image_id"].to_pylist(), rows[ROW_DIGEST].to_pylist(), strict=True))


def _among(rows: pa.Table, keys: Keys) -> pa.Array:
    """True for the rows whose output, made of the row as it is now, is among the keys."""
    known = set(keys)
    return pa.array([key in known for key in _keys(rows)], pa.bool_())


def _count(rows: pa.Table, keys: Keys) -> int:
    return len(set(_keys(rows)) & set(keys))


def _has_old_rows(done: Done, wanted: dict[str, str]) -> bool:
    """Whether a row has two outputs, or one that was made of the row as it was."""
    keys = [key for key in done.finished + done.quarantined if key[0] in wanted]
    return len({image_id for image_id, _ in keys}) < len(keys) or any(wanted[name] != found for name, found in keys)


def _check_budget(folder: str, rows: pa.Table, budget: Budget) -> None:
    found = read_shards(storage.join(folder, QUARANTINED), schema=QUARANTINE)
    quarantine = found.filter(_among(found, _keys(rows)))
    allowed = allowed_rows(budget, rows.num_rows)
    if quarantine.num_rows > allowed or (rows.num_rows and quarantine.num_rows == rows.num_rows):
        first = "; ".join(f"{row['image_id']}: {row['reason']}" for row in quarantine.slice(0, 3).to_pylist())
        raise BudgetExceeded(
            f"{quarantine.num_rows} of {rows.num_rows} rows are in quarantine, allowed are {allowed}. "
            f"First: {first}. All: {storage.join(folder, QUARANTINED)}; mend the rows and delete that folder "
            "to try them again, or raise budget.max_rows"
        )
