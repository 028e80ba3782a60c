"""What a stage is: a step of a stream that maps columns of a row to columns and never loses a row.

A row that can't be processed gets `error_stage` and `error_reason`; later stages pass it on untouched, and the sink
writes it to the quarantine table.
"""

import logging
import sys
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import takewhile
from typing import Any, ClassVar, Literal

import pyarrow as pa

from raypipe.faults import ROW_ERRORS, blame, in_words
from raypipe.progress import tick, waiting

logger = logging.getLogger(__name__)

Row = dict[str, Any]

Kind = Literal["fetch", "device", "finish"]
"""What a stage does most of its time: it waits for storage, runs a network or works on the CPU."""

ERRORS = pa.schema([pa.field("error_stage", pa.string()), pa.field("error_reason", pa.string())])
"""Columns that every row carries; null while nothing went wrong."""

ROWS_PER_CHUNK = 8
"""Rows that go through the stages together, while the next ones are decoded."""

LONGEST_REASON = 1000
"""Characters: a reason may quote a label, which may be of any length."""


def with_error_columns(table: pa.Table) -> pa.Table:
    """Adds the error columns, all null, where rows have none yet."""
    for column in ERRORS:
        if column.name not in table.column_names:
            table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table


class Stage(ABC):
    """One step of a stream, a dataclass: its fields say what it does and are part of the outputs' digest.

    A stage is made where the plan is made and travels to the processes that run it. Only there `setup` loads networks.
    """

    writes: ClassVar[pa.Schema] = pa.schema([])
    """Columns that this stage adds."""
    leaves: ClassVar[tuple[str, ...]] = ()
    """Values that are no columns, such as decoded pixels: they never leave the process."""
    ahead: ClassVar[bool] = False
    """Runs in threads, for the next rows while later stages work on these; needs no `setup`."""
    rows_at_a_time: ClassVar[int] = ROWS_PER_CHUNK
    """Rows that may go through the stages together, at most."""
    gpu_setting: ClassVar[str | None] = None
    """The setting that has put this stage on a GPU, without which its plan is refused; None runs anywhere."""

    @property
    @abstractmethod
    def reads(self) -> tuple[str, ...]:
        """Columns that must be there, or values that earlier stages in the same process have left."""

    @property
    def kind(self) -> Kind | None:
        """Which pool the stage belongs into; None joins the stage after it."""
        return "finish"

    def setup(self, device: str) -> None:  # noqa: B027 - most stages have nothing to load
        """Loads what the stage needs, once in each process.

        Args:
            device: where networks run, as torch names it: "cpu" or "cuda".
        """

    @abstractmethod
    def process(self, row: Row) -> Row:
        """Returns the columns `writes` and the values `leaves` of one row.

        Raises:
            ValueError: (or another of ROW_ERRORS) if this row can't be processed.
        """

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Returns the rows with their new columns, or with an error."""
        return [self._guarded(row) for row in rows]

    def contained(self, rows: Sequence[Row]) -> list[Row]:
        """Runs `process_all`; after an error that it doesn't expect each row is tried alone.

        The row that fails once more is in error. What is the fault of storage, the node or its device is raised.
        """
        tick(type(self).__name__)
        try:
            return self.process_all(rows)
        except Exception as error:
            if blame(error) != "row":
                raise
            logger.warning("%s: %s; each of the %d rows is tried alone", *self._named(error), len(rows), exc_info=True)
        done = []
        for row in rows:
            # Not where the error is caught, for that holds what the failed try had computed.
            if (torch := sys.modules.get("torch")) is not None and torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            try:
                done += self.process_all([row])
            except Exception as error:
                if blame(error) != "row":
                    raise
                done.append(self.failed(row, error))
        return done

    def _named(self, error: Exception) -> tuple[str, str]:
        return type(self).__name__, in_words(error)

    def _guarded(self, row: Row) -> Row:
        if row.get("error_stage") is not None:
            return row
        tick()
        try:
            return row | self.process(row)
        except ROW_ERRORS as error:
            if blame(error) != "row":
                raise
            return self.failed(row, error)

    def failed(self, row: Row, error: Exception) -> Row:
        """Returns the row in error."""
        return row | {"error_stage": type(self).__name__, "error_reason": in_words(error)[:LONGEST_REASON]}

    def __call__(self, table: pa.Table) -> pa.Table:
        """Runs this stage alone on a table; `setup` has been called."""
        return run_stages([self], table)


def columns_after(columns: Iterable[str], stages: Sequence[Stage]) -> list[str]:
    """Names of the columns that rows have after stages that run in one process, the error columns last.

    Raises:
        ValueError: if a stage reads a column that isn't there, with its name and what is there.
    """
    present = [name for name in columns if name not in ERRORS.names]
    left: set[str] = set()
    for stage in stages:
        missing = [name for name in stage.reads if name not in present and name not in left]
        if missing:
            raise ValueError(
                f"{type(stage).__name__} reads {missing}, but upstream there are only {sorted([*present, *left])}; "
                "put the stage that writes them before it"
            )
        present = [*(name for name in present if name not in stage.writes.names), *stage.writes.names]
        left.update(stage.leaves)
    return [*present, *ERRORS.names]


def run_stages(
    stages: Sequence[Stage],
    table: pa.Table,
    *,
    keep: Collection[str] | None = None,
    threads: Executor | None = None,
    turn: AbstractContextManager[Any] | None = None,
    alone: AbstractContextManager[Any] | None = None,
    measure: Callable[[Stage], AbstractContextManager[Any]] = nullcontext,
) -> pa.Table:
    """Runs stages one after the other on a table, in this process.

    Stages that fetch see all rows at once. The others see a few rows at a time, for which the stages that may run ahead
    have been run in threads meanwhile. Columns that no stage reads are handed on as they are.

    Args:
        stages: set up.
        table: rows; those in error pass by.
        keep: columns that somebody needs afterwards; None keeps all. The error columns stay in any case.
        threads: run what may run ahead; None runs it in turn.
        turn: entered while rows are given to the threads, so that of two calls the earlier one's rows come first.
        alone: entered while stages run that must not run twice at a time in a process.
        measure: makes what is entered while a stage works; threads do so at once.
    """
    table = with_error_columns(table)
    names = [
        name
        for name in columns_after(table.column_names, stages)
        if keep is None or name in keep or name in ERRORS.names
    ]
    read = {*ERRORS.names, *(name for stage in stages for name in stage.reads)}
    rows: list[Row] = table.select([name for name in table.column_names if name in read]).to_pylist()
    fetching = list(takewhile(lambda stage: stage.kind == "fetch", stages))
    ahead = list(takewhile(lambda stage: stage.ahead, stages[len(fetching) :]))
    behind = stages[len(fetching) + len(ahead) :]
    for stage in fetching:
        with measure(stage):
            rows = stage.contained(rows)
    written = {field.name: field for stage in stages for field in stage.writes if field.name in names}
    done: dict[str, list[Any]] = {name: [] for name in [*written, *ERRORS.names]}
    with ExitStack() as given:
        with waiting():
            given.enter_context(turn or nullcontext())
        size = min(stage.rows_at_a_time for stage in stages)
        chunks = _chunks(rows, ahead, threads, size=size, all_given=given.close, measure=measure)
        del rows  # each chunk is freed when it is done
        with ExitStack() as held:
            with waiting():
                held.enter_context(alone or nullcontext())
            for chunk in chunks:
                for stage in behind:
                    with measure(stage):
                        chunk = stage.contained(chunk)
                for name, values in done.items():
                    values.extend(row.get(name) for row in chunk)
    columns = {name: table[name] for name in names if name not in done}
    columns |= {name: pa.array(done[name], field.type) for name, field in written.items()}
    columns |= {field.name: pa.array(done[field.name], field.type) for field in ERRORS}
    return pa.table({name: columns[name] for name in names})


def _chunks(
    rows: list[Row],
    ahead: Sequence[Stage],
    threads: Executor | None,
    *,
    size: int,
    all_given: Callable[[], None],
    measure: Callable[[Stage], AbstractContextManager[Any]],
) -> Iterator[list[Row]]:
    """A few rows at a time; the stages `ahead` have been run on them, and threads are at work on the next ones.

    Calls `all_given` as soon as the threads have all rows.
    """

    def run(row: Row) -> Row:
        for stage in ahead:
            with measure(stage):
                row = stage.contained([row])[0]
        return row

    chunks = deque(rows[start : start + size] for start in range(0, len(rows), size))
    if threads is None or not ahead:
        all_given()
        return (list(map(run, chunks.popleft())) for _ in range(len(chunks)))
    return _run_ahead(run, chunks, threads, all_given)


def _run_ahead(
    run: Callable[[Row], Row], chunks: deque[list[Row]], threads: Executor, all_given: Callable[[], None]
) -> Iterator[list[Row]]:
    def submit() -> list[Future[Row]]:
        futures = [threads.submit(run, row) for row in (chunks.popleft() if chunks else ())]
        if not chunks:
            all_given()
        return futures

    first = submit()  # at once, not when the first chunk is asked for: another call may be at work until then

    def finished() -> Iterator[list[Row]]:
        futures = first
        while futures:
            coming = submit()
            yield [future.result() for future in futures]
            futures = coming

    return finished()
