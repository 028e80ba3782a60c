"""What a stage is: a callable that maps columns of an Arrow batch to columns, row by row, and never loses a row.

A row that can't be processed gets `error_stage` and `error_reason`; later stages pass it on untouched, and the sink
writes it to the quarantine table.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import pyarrow as pa

Row = dict[str, Any]

ERRORS = pa.schema([pa.field("error_stage", pa.string()), pa.field("error_reason", pa.string())])
"""Columns that every row carries; null while nothing went wrong."""

ROW_ERRORS = (ValueError, FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
"""What is wrong with a row. Everything else (a lost connection, memory) is wrong with the machine: it is raised, and
the scheduler runs the batch again."""

_LONGEST_REASON = 1000
"""Characters: a reason may quote a label, which may be of any length."""


def with_error_columns(table: pa.Table) -> pa.Table:
    """Rows as stages take them: with the error columns, all null."""
    for column in ERRORS:
        table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table


class Stage(ABC):
    """One step of a stream.

    Subclasses load what they need once in `__init__` and map one row to its new columns in `process`.
    """

    reads: ClassVar[tuple[str, ...]]
    """Columns that must be there."""
    writes: ClassVar[pa.Schema]
    """Columns that this stage adds."""
    drops: ClassVar[tuple[str, ...]] = ()
    """Columns that nobody needs after this stage."""

    @abstractmethod
    def process(self, row: Row) -> Row:
        """The columns `writes` of one row.

        Raises:
            ValueError: (or another of ROW_ERRORS) if this row can't be processed.
        """

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Processes the rows of a batch; rows in error pass by."""
        rows = self.process_all(batch.to_pylist())
        names = {field.name for field in self.writes} | {field.name for field in ERRORS}
        kept = [field for field in batch.schema if field.name not in names and field.name not in self.drops]
        return pa.Table.from_pylist(rows, schema=pa.schema([*kept, *self.writes, *ERRORS]))

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """The rows with their new columns, or with an error."""
        return [self._guarded(row) for row in rows]

    def _guarded(self, row: Row) -> Row:
        if row.get("error_stage") is not None:
            return row
        try:
            return row | self.process(row)
        except ROW_ERRORS as error:
            return self.failed(row, error)

    def failed(self, row: Row, error: Exception) -> Row:
        """The row in error."""
        # Ray Data runs a subclass of its own making: the stage is the class that declares columns.
        name = next(cls.__name__ for cls in type(self).__mro__ if "reads" in vars(cls) or "writes" in vars(cls))
        return row | {"error_stage": name, "error_reason": f"{type(error).__name__}: {error}"[:_LONGEST_REASON]}
