"""Runs a stream so that no row is lost, none is computed twice, and an interrupted run goes on where it was."""

import json
import logging
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import pyarrow as pa

import raypipe
from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.cluster.connect import is_connected
from raypipe.cluster.health import AllSick, are_more_sick, forgive, named_nodes, sick_nodes
from raypipe.cluster.resources import PoolPlan
from raypipe.cluster.waiting import watch_start
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.outputs.lease import Lease, hold
from raypipe.outputs.ledger import QUARANTINED, forget_quarantined
from raypipe.outputs.records import open_folder, read_stream_summary, write_summary
from raypipe.outputs.sink import ShardWriter
from raypipe.results import StreamSummary
from raypipe.schema import CLASSES_KEY, PROVENANCE_KEY, ROW_DIGEST
from raypipe.screen.step import Step, step
from raypipe.streams.books import Books
from raypipe.streams.budget import BudgetExceeded, allowed_rows
from raypipe.streams.execute import execute
from raypipe.streams.execute_here import can_run_here, execute_here
from raypipe.streams.moves import file_moved_rows
from raypipe.streams.plan import Plan, Pool
from raypipe.streams.settle import Settled, settle
from raypipe.streams.source import Source
from raypipe.streams.tasks import Tasks, are_few, in_tasks

NUM_BLOCKS = 128
"""So many blocks keep all workers of a stream busy to its end; more of them only cost time."""

LEAST_ROWS, USUAL_ROWS, MOST_ROWS = 8, 32, 256
"""Of a block: in a short stream, in most, and in one so long that Ray's driver would be the limit with smaller ones."""

MOST_LOADED_HERE = 500
"""Rows whose loads the driver reads itself."""

MOST_SETTLING = 4
"""Parts that are settled while others are computed: each holds a shard's rows in memory, and reads and writes."""

_MANY_BLOCKS = 50_000
"""Blocks of a stream from which on they grow: Ray's driver takes some 10 ms for each and each pool."""


Pools = Sequence[tuple[Pool, PoolPlan]]
"""Of a stream, with their resources."""

logger = logging.getLogger(__name__)


class RowsLost(RuntimeError):  # noqa: N818 - says what happened
    """Finished and quarantined rows don't add up to the manifest's: a defect, never a user's mistake."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a stream is run; nothing here changes an output."""

    out: str
    """Folder of the run."""
    budget: Budget
    rows_per_block: int | None = None
    """Rows that go through the pools together; None plans them."""
    png_column: str | None = None
    """Column of PNG bytes that is also written as one file a row."""
    retry_quarantined: bool = False
    """Rows in quarantine are tried again."""
    start_timeout: float = 600
    """Seconds in which nothing runs after which the stream ends."""
    row_timeout: float = 600
    """Seconds without progress after which a process is ended and its rows are tried alone."""


def run_stream(
    plan: Plan, rows: Rows, settings: Settings, pools: Callable[[], Pools], *, start: Callable[[], None] | None = None
) -> tuple[Artifact, StreamSummary]:
    """Computes the rows that aren't done yet and checks that all are accounted for.

    A row is done when the folder holds its output, or its place in the quarantine, under the digest that it has now.
    Outputs of rows that aren't asked for stay where they are.

    Args:
        plan: what is computed.
        rows: the source, with an `image_id` that no other row has; rows in error go into quarantine as they are.
        settings: how.
        pools: gives those of the plan, with their resources on the nodes that aren't sick.
        start: connects to Ray where something is to be computed; None where that is done.

    Returns:
        The folder and what was done.

    Raises:
        BudgetExceeded: if too many rows are in quarantine.
        MixedOutputs: if the folder holds outputs that were made otherwise.
        NothingStarted: if nothing runs on the cluster for too long.
        FolderInUse: if another run is at work in the folder.
        AllSick: if no node is left that isn't sick.
    """
    plan.check(rows.columns)
    artifact = plan.artifact(settings.out)
    open_folder(artifact.uri, plan.provenance())
    with hold(artifact.uri, holder=f"the stream {plan.name}") as lease:
        if settings.retry_quarantined:
            forget_quarantined(artifact.uri)
            forgive()
        if file_moved_rows(source := Source.of(plan, rows, artifact.uri, run=lease.epoch)):
            source = Source.of(plan, rows, artifact.uri, run=lease.epoch)
        num_computed, on_gpus = 0, False
        while True:
            run = _Run(source, settings, pools, lease, num_computed, start=start, on_gpus=on_gpus)
            try:
                with step(plan.title or plan.name) as counted:
                    return artifact, run.finish(counted)
            except Exception as error:
                if run.sick is None or not are_more_sick(run.sick):
                    raise
                named = "; ".join(named_nodes(sick_nodes()))
                logger.warning("%s goes on without sick nodes, after %s: %s", plan.name, type(error).__name__, named)
            num_computed, on_gpus = run.num_computed, run.on_gpus
            source = Source.of(plan, rows, artifact.uri, run=lease.epoch)


class _Run:
    """One run of a stream."""

    def __init__(
        self,
        source: Source,
        settings: Settings,
        pools: Callable[[], Pools],
        lease: Lease,
        num_computed: int,
        *,
        start: Callable[[], None] | None,
        on_gpus: bool,
    ) -> None:
        self.source, self.settings, self.pools, self.lease = source, settings, pools, lease
        self.num_computed, self.start, self.on_gpus = num_computed, start, on_gpus
        self.before = read_stream_summary(source.folder)
        """Of the stream's last run that came to its end."""
        self.sick: dict[str, str] | None = None
        """Nodes that were sick when the pools were planned; None as long as there was nothing to plan."""
        self.few = are_few(source.rows)
        # What rows bring along from other streams is tens of kilobytes each.
        self.read_here = self.few and (not source.plan.loads or source.rows.most <= MOST_LOADED_HERE)
        self.settle = partial(settle, source)
        self.settled: dict[str, Settled] = {}
        """Accounts of the parts that are settled, by name."""

    def finish(self, counted: Step) -> StreamSummary:
        """Computes what isn't done, settles all parts and counts.

        Args:
            counted: is told how far it is.

        Raises:
            BudgetExceeded: as `run_stream`.
            RowsLost: as the class says.
        """
        started = time.monotonic()
        folder = self.source.folder
        self._compute(counted)
        left = [part for part in self.source.rows.read_parts if part.name not in self.settled]
        for part, account in zip(left, in_tasks(self.settle, left, inline=self.few), strict=True):
            self.settled[part.name] = account
        accounts = self.settled.values()
        rows, finished, quarantined = (
            sum(getattr(account, name) for account in accounts)
            for name in ("num_rows", "num_finished", "num_quarantined")
        )
        self._check_budget(rows, quarantined)
        if finished + quarantined != rows:
            raise RowsLost(f"{folder}: {finished} finished + {quarantined} quarantined rows for {rows} rows")
        before, seconds = self.before, time.monotonic() - started
        earlier = 0 if before is None else before.total_seconds
        summary = StreamSummary(
            num_rows=rows,
            num_finished=finished,
            num_quarantined=quarantined,
            num_computed=self.num_computed,
            seconds=round(seconds, 2),
            total_seconds=round(earlier + seconds, 2),
        )
        counted.is_needed = self.num_computed > 0
        if rows != self.num_computed:
            counted.note = f"{self.num_computed:,} computed now" if counted.is_needed else "made before"
        counted.update(rows, rows, quarantined=quarantined)
        if self.num_computed or before is None or before.num_rows != summary.num_rows:
            write_summary(folder, asdict(summary))
        return summary

    def _planned(self) -> Pools:
        """The pools, with Ray connected.

        Raises:
            AllSick: if the run has had GPUs, and all that is left has none.
        """
        if self.start is not None:
            self.start()
        self.sick = sick_nodes()
        planned = self.pools()
        if self.on_gpus and not any(each.gpus for _, each in planned):
            raise AllSick(f"no node with a GPU is left that isn't sick: {'; '.join(named_nodes(self.sick))}")
        self.on_gpus = any(each.gpus for _, each in planned)
        return planned

    def _compute(self, counted: Step) -> None:
        """Computes what isn't done, and settles the parts that are complete meanwhile."""
        source = self.source
        size = self.settings.rows_per_block or rows_per_block(source.rows.most)
        blocks: Any = source.parts(rows_per_table=size)
        if self.few:
            todo = [table for part in source.rows.read_parts if (table := source.todo(part)).num_rows]
            if not todo:
                return
            if self.read_here:
                size = self.settings.rows_per_block or rows_per_block(sum(table.num_rows for table in todo))
                blocks = [block for table in todo for block in source.cut(table, rows_per_table=size)]
        allowed = allowed_rows(self.settings.budget, source.rows.most)
        parts = {part.name: part for part in source.rows.read_parts}
        outcomes = self._execute(blocks, rows_per_block=size)
        books, settling, waiting = Books(source), Tasks(inline=self.few), deque[str]()
        with closing(outcomes):
            for written in outcomes:
                self.lease.check()
                self.num_computed += sum(sum(written[name].to_pylist()) for name in ("num_finished", "num_quarantined"))
                for part in books.add(written):
                    settling.submit(self.settle, parts[part])
                    waiting.append(part)
                for account in settling.results(most_running=MOST_SETTLING):
                    self.settled[waiting.popleft()] = account
                counted.update(books.num_done, books.num_todo, quarantined=books.num_quarantined)
                if books.num_quarantined > allowed:
                    break
        for account in settling.results():
            self.settled[waiting.popleft()] = account

    def _execute(self, blocks: Any, *, rows_per_block: int) -> Generator[pa.Table, None, None]:
        """Numbers of rows, block by block as they are written: of Ray, or of this process where that is quicker."""
        plan, writer = self.source.plan, self._writer()
        if self.start is not None and not is_connected() and can_run_here(plan, most_rows=self.source.rows.most):
            tables = blocks if self.read_here else (table for name in blocks.names for table in blocks.read(name))
            yield from execute_here(tables, plan.pools(gpus=False), writer=writer)
            return
        pools = self._planned()
        with watch_start(plan.name, needs_of(pools), timeout=self.settings.start_timeout):
            yield from execute(
                blocks,
                pools,
                rows_per_block=rows_per_block,
                writer=writer,
                row_timeout=self.settings.row_timeout,
            )

    def _writer(self) -> ShardWriter:
        plan = self.source.plan
        provenance = plan.provenance() | {"raypipe": raypipe.__version__}
        metadata = {
            CLASSES_KEY: json.dumps(list(plan.classes), ensure_ascii=False).encode(),
            PROVENANCE_KEY: json.dumps(provenance, default=str).encode(),
        }
        return ShardWriter(
            folder=self.source.folder,
            schema=plan.schema.append(pa.field(ROW_DIGEST, pa.string())).with_metadata(metadata),
            run=self.source.run,
            png_column=self.settings.png_column,
        )

    def _check_budget(self, num_rows: int, num_quarantined: int) -> None:
        allowed = allowed_rows(self.settings.budget, num_rows)
        if num_quarantined > allowed or (num_rows and num_quarantined == num_rows):
            first = "; ".join([reason for account in self.settled.values() for reason in account.reasons][:3])
            raise BudgetExceeded(
                f"{num_quarantined} of {num_rows} rows are in quarantine, allowed are {allowed}. First: {first}. All: "
                f"{storage.join(self.source.folder, QUARANTINED)}; mend the rows and try them again with "
                "`raypipe run CONFIG --retry-quarantined=all`, or raise budget.max_rows"
            )


def needs_of(pools: Pools) -> str:
    """What pools need at least before a row can get through, in words."""
    return " and ".join(f"{each.min_actors} x ({each.cpus:g} CPUs, {each.gpus:g} GPUs)" for _, each in pools)


def rows_per_block(num_rows: int) -> int:
    """Rows that go through the pools together: few in a short stream, lest workers idle, more in a very long one."""
    usual = min(USUAL_ROWS, max(LEAST_ROWS, num_rows // NUM_BLOCKS))
    return min(MOST_ROWS, max(usual, num_rows // _MANY_BLOCKS))
