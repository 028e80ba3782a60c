"""Brings rows that are read part by part into the driver: few of many, or what is known to be few."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.rows import ONLY_PART, Part, Rows
from raypipe.data.shards import ShardError
from raypipe.outputs.ledger import Catalogue
from raypipe.outputs.load import Load, held, loaded, with_places, with_quarantined
from raypipe.outputs.records import set_sum, sum_digest
from raypipe.stages.base import ERRORS, with_error_columns
from raypipe.streams.plan import Plan
from raypipe.streams.tasks import are_few, in_tasks

Result = TypeVar("Result")

_ROWS_AT_A_TIME = 256
"""Whose outputs are in memory together."""


def collect(rows: Rows) -> pa.Table:
    """All rows, in memory."""
    tables = list(in_tasks(rows.read, rows.read_parts, inline=are_few(rows)))
    return pa.concat_tables(tables).unify_dictionaries() if tables else rows.empty


def with_imported(table: pa.Table, plan: Plan) -> pa.Table:
    """Few rows with what their stages take from imported seeds, where they run without their stream."""
    loads = [load for load in plan.read_loads if load.imported]
    for load in loads:
        ledger = Catalogue.of(load.outputs.uri).read(ONLY_PART)
        table = with_quarantined(with_places(table, ledger, load.outputs, prefix=load.prefix), ledger)
    return pa.concat_tables(loaded(table, loads, rows_per_table=_ROWS_AT_A_TIME)) if loads else table


def with_ids(rows: Rows, image_ids: Sequence[str]) -> Rows:
    """The rows of some images."""
    wanted = pa.array(image_ids, pa.string())
    return rows.where(lambda table: pc.is_in(table["image_id"], wanted))


def count(rows: Rows) -> int:
    """The number of rows."""
    return sum(in_tasks(partial(_count, rows), rows.read_parts, inline=are_few(rows)))


def draw_rows(rows: Rows, number: int | None, *, seed: int = 0) -> Rows:
    """That many rows drawn at random by their ids, all where None: the same however they come."""
    return rows if number is None else rows.only(drawn_ids(rows, number, seed=seed))


def drawn_ids(rows: Rows, number: int, *, seed: int = 0) -> dict[str, list[str]]:
    """Ids of the rows of `draw_rows`, by the names of their parts."""
    drawn = list(in_tasks(partial(_draw, rows, number, seed), rows.read_parts, inline=are_few(rows)))
    found = [(part.name, name) for part, ids in zip(rows.read_parts, drawn, strict=True) for name in ids]
    chosen: dict[str, list[str]] = {}
    for index in draw([name for _, name in found], number, seed=seed):
        chosen.setdefault(found[index][0], []).append(found[index][1])
    return chosen


def draw(image_ids: Sequence[str], number: int | None, *, seed: int = 0) -> list[int]:
    """Indices of that many ids drawn at random, all where None: the same ids in the same order however they come."""
    return sorted(range(len(image_ids)), key=lambda index: storage.digest([seed, image_ids[index]]))[:number]


def rows_digest(rows: Rows, columns: Sequence[str]) -> str:
    """12 hex digits over a set of rows, whatever their order: what consumes the set as a whole depends on it."""
    sums = in_tasks(partial(_sum, rows, tuple(columns)), rows.read_parts, inline=are_few(rows))
    return sum_digest(sums)


def outputs_of(outputs: Artifact, rows: Rows, columns: pa.Schema) -> pa.Table:
    """Columns of a stream's outputs of some rows, in the order of `image_id`.

    Args:
        outputs: the stream's folder.
        rows: few enough to have their outputs in memory; those without an output are left out.
        columns: to read.
    """
    parts = reduce_outputs(outputs, rows.select(["image_id"]), columns, _in_memory)
    found = [table for tables in parts for table in tables]
    return pa.concat_tables(found).sort_by("image_id") if found else columns.empty_table()


def reduce_outputs(
    outputs: Artifact, rows: Rows, columns: pa.Schema, function: Callable[[Iterator[pa.Table], Part], Result]
) -> Iterator[Result]:
    """What a function makes of a stream's outputs, part by part, where they are read.

    Args:
        outputs: the stream's folder.
        rows: whose outputs are read; those without an output are left out.
        columns: of the outputs. What rows have of the same name is replaced by them.
        function: of the rows of a part, some at a time.
    """
    others = [name for name in rows.columns if name not in columns.names or name == "image_id"]
    load = Load(outputs=outputs, columns=pa.schema([field for field in columns if field.name != "image_id"]))
    job = partial(_reduce, held(rows.select(others), outputs), load, columns.names, function)
    return in_tasks(job, rows.read_parts, inline=are_few(rows))


def quarantined(outputs: Artifact, rows: Rows) -> pa.Table:
    """`image_id`, `split`, `error_stage` and `error_reason` of the rows that a stream has quarantined."""
    tables = list(
        in_tasks(partial(_quarantined, Catalogue.of(outputs.uri), rows), rows.read_parts, inline=are_few(rows))
    )
    return pa.concat_tables(tables) if tables else _failed(with_error_columns(rows.empty))


def _quarantined(catalogue: Catalogue, rows: Rows, part: Part) -> pa.Table:
    return _failed(with_quarantined(rows.read(part), catalogue.read(part.name)))


def _failed(table: pa.Table) -> pa.Table:
    table = table.filter(pc.is_valid(table["error_stage"]))
    return table.select([name for name in ("image_id", "split", *ERRORS.names) if name in table.column_names])


def _reduce(
    rows: Rows, load: Load, names: Sequence[str], function: Callable[[Iterator[pa.Table], Part], Result], part: Part
) -> Result:
    return function(loaded_outputs(rows.read(part), load, names), part)


def loaded_outputs(table: pa.Table, load: Load, names: Sequence[str]) -> Iterator[pa.Table]:
    """What a load reads of rows with their places, some at a time, in the order of its shards.

    Args:
        table: rows with the columns of `with_places`.
        load: what to read.
        names: of the columns that come first, of the load's and `image_id`; the rows' other columns follow.

    Raises:
        ShardError: a shard is damaged.
    """
    for some in loaded(table, [load], rows_per_table=_ROWS_AT_A_TIME):
        if failed := some["error_reason"].drop_null().to_pylist():
            raise ShardError(failed[0])
        others = [name for name in some.column_names if name not in (*names, *ERRORS.names)]
        yield some.select([*names, *others])


def _in_memory(tables: Iterator[pa.Table], _: Part) -> list[pa.Table]:
    return list(tables)


def _count(rows: Rows, part: Part) -> int:
    return int(rows.read(part).num_rows)


def _draw(rows: Rows, number: int, seed: int, part: Part) -> list[str]:
    image_ids = rows.read(part)["image_id"].to_pylist()
    return [image_ids[index] for index in draw(image_ids, number, seed=seed)]


def _sum(rows: Rows, columns: Sequence[str], part: Part) -> tuple[int, int]:
    return set_sum(rows.read(part), columns)
