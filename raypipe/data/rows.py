"""Rows that are read part by part, where and when they are needed: a driver holds names and counts, never rows."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import schema

ONLY_PART = "all"
"""Name of the part that a table, or a manifest of one file, is: a grown manifest may have another file's name."""


@dataclass(frozen=True)
class Part:
    """Some rows of a manifest: a file, or a table."""

    name: str
    """Names the folder of what is made of the part; unlike those of the other parts."""
    num_rows: int
    read: Callable[[], pa.Table] = field(compare=False, repr=False)
    """The rows, checked. Workers call it, too."""
    uri: str | None = None
    """Of the file."""


@dataclass(frozen=True)
class InMemory:
    """Reads a table that is there already."""

    table: pa.Table

    def __call__(self) -> pa.Table:
        """The table."""
        return self.table


Change = Callable[[pa.Table, Part], pa.Table]
"""Makes other rows of a part's rows, where they are read. Workers call it, so it travels by value."""


@dataclass(frozen=True)
class Rows:
    """Rows of a manifest that aren't read yet."""

    parts: tuple[Part, ...]
    changes: tuple[Change, ...] = ()
    """In order."""
    schema: pa.Schema = schema.MANIFEST
    """Of the parts, before any change."""
    chosen: tuple[str, ...] | None = None
    """Names of the parts that hold rows that were drawn; None reads all."""
    limit: int | None = None
    """The number of rows at most, where it is known."""

    @classmethod
    def of(cls, table: pa.Table) -> "Rows":
        """The rows of a table, as one part."""
        return cls((Part(ONLY_PART, table.num_rows, InMemory(table)),), schema=table.schema)

    @property
    def most(self) -> int:
        """The number of rows at most: changes may leave some out."""
        number = sum(part.num_rows for part in self.read_parts)
        return number if self.limit is None else min(number, self.limit)

    @property
    def read_parts(self) -> tuple[Part, ...]:
        """The parts that have to be read."""
        return tuple(part for part in self.parts if self.chosen is None or part.name in self.chosen)

    @property
    def empty(self) -> pa.Table:
        """No row, with all columns."""
        empty = self.schema.empty_table()
        return self._changed(empty, Part(ONLY_PART, 0, InMemory(empty)))

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        names: list[str] = self.empty.column_names
        return names

    def then(self, change: Change) -> "Rows":
        """The rows that a change makes of these."""
        return replace(self, changes=(*self.changes, change))

    def where(self, choose: Callable[[pa.Table], pa.Array]) -> "Rows":
        """The rows for which a function says true."""
        return self.then(lambda table, _: table.filter(choose(table)))

    def select(self, columns: Sequence[str]) -> "Rows":
        """The rows with some of the columns."""
        return self.then(lambda table, _: table.select(list(columns)))

    def only(self, image_ids: Mapping[str, Sequence[str]]) -> "Rows":
        """The rows with some ids, which are given by the parts' names."""
        limit = sum(map(len, image_ids.values()))

        def choose(table: pa.Table, part: Part) -> pa.Table:
            return table.filter(pc.is_in(table["image_id"], pa.array(image_ids.get(part.name, []), pa.string())))

        return replace(self.then(choose), chosen=tuple(image_ids), limit=limit)

    def read(self, part: Part) -> pa.Table:
        """The rows of one part."""
        return self._changed(part.read(), part)

    def _changed(self, table: pa.Table, part: Part) -> pa.Table:
        for change in self.changes:
            table = change(table, part)
        return table
