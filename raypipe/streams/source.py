"""Where a stream's rows come from: the rows of each part that aren't done yet, with what they take from other streams.

A part is read by a task on the cluster when its turn comes, so the first rows don't wait for the last part, and the
driver holds none of them. Few rows are cut in the driver itself: a task would take longer to start.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.data.rows import Part, Rows
from raypipe.outputs.ledger import Catalogue, without_lost
from raypipe.outputs.load import loaded, with_places, with_quarantined
from raypipe.outputs.records import row_digests
from raypipe.outputs.sink import PART, PART_TODO
from raypipe.schema import ROW_DIGEST, SHARD_URI
from raypipe.stages.base import with_error_columns
from raypipe.streams.execute import Parts
from raypipe.streams.plan import Plan


@dataclass(frozen=True, kw_only=True)
class Source:
    """The rows of a stream."""

    plan: Plan
    rows: Rows
    folder: str
    """Of the stream's outputs."""
    run: int
    """Number of the run."""
    catalogues: Mapping[str, Catalogue]
    """By URI, of the stream's folder and of those that it loads from. What the run itself writes isn't in them: a part
    that is read once more, because a machine was lost, has the same rows to do."""

    @classmethod
    def of(cls, plan: Plan, rows: Rows, folder: str, *, run: int) -> "Source":
        """Lists what was done before the run."""
        folders = [folder, *(load.outputs.uri for load in plan.loads)]
        catalogues = {uri: Catalogue.of(uri) for uri in dict.fromkeys(folders)}
        return cls(plan=plan, rows=rows, folder=folder, run=run, catalogues=catalogues)

    def wanted(self, part: Part) -> pa.Table:
        """All rows of a part, with where the plan's loads find them, and with their digest."""
        table = self.rows.read(part)
        loads = self.plan.loads
        for load in loads:
            ledger = load.ledger(part, self.catalogues[load.outputs.uri])
            table = with_places(table, ledger, load.outputs, prefix=load.prefix)
            if load.imported or not load.part_of_plan:
                table = with_quarantined(table, ledger)
        choosing = [load for load in loads if load.part_of_plan and not load.imported]
        found = [pc.is_valid(table[load.prefix + SHARD_URI]) for load in choosing]
        if found:
            required = [is_found for load, is_found in zip(choosing, found, strict=True) if not load.optional]
            table = table.filter(reduce(pc.and_, required) if required else reduce(pc.or_, found))
        return table.append_column(ROW_DIGEST, row_digests(table, self.plan.row_columns()))

    def todo(self, part: Part) -> pa.Table:
        """The rows of a part that weren't done before this run."""
        table = self.wanted(part)
        ledger = without_lost(self.folder, part.name, self.catalogues[self.folder].read(part.name))
        left = table.filter(not_among(table, ledger.finished))
        left = left.filter(not_among(left, ledger.quarantined))
        left = left.append_column(PART, pa.array([part.name] * left.num_rows, pa.string()))
        return left.append_column(PART_TODO, pa.array([left.num_rows] * left.num_rows, pa.int64()))

    def cut(self, todo: pa.Table, *, rows_per_table: int) -> Iterator[pa.Table]:
        """The rows of `todo`, cut, with all columns that the pools read."""
        for table in loaded(todo, self.plan.read_loads, rows_per_table=rows_per_table):
            yield with_error_columns(table)

    def parts(self, *, rows_per_table: int) -> Parts:
        """The parts, to be read by tasks."""
        by_name = {part.name: part for part in self.rows.read_parts}

        def read(name: str) -> Iterator[pa.Table]:
            yield from self.cut(self.todo(by_name[name]), rows_per_table=rows_per_table)

        return Parts(tuple(by_name), read)


def not_among(rows: pa.Table, others: pa.Table) -> pa.Array:
    """True for the rows whose id and digest no other row has."""
    # Digests are all of one length, so that the pair needs nothing in between.
    keys, known = (pc.binary_join_element_wise(each[ROW_DIGEST], each["image_id"], "") for each in (rows, others))
    return pc.invert(pc.is_in(keys, known.combine_chunks()))
