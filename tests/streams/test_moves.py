"""Outputs of rows that lie in another part now; a whole stream's are in test_source."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.rows import InMemory, Part, Rows
from raypipe.outputs.sink import ShardWriter
from raypipe.schema import ROW_DIGEST
from raypipe.streams.moves import PARTS_FILE, file_moved_rows
from raypipe.streams.plan import Plan
from raypipe.streams.settle import settle
from raypipe.streams.source import Source

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False)])
PLAN = Plan(name="masks", stages=(), schema=SCHEMA, classes=())


def make_source(folder: Path, run: int, **parts: list[str]) -> Source:
    tables = {name: pa.table({"image_id": ids}) for name, ids in parts.items()}
    found = tuple(Part(name, table.num_rows, InMemory(table)) for name, table in tables.items())
    return Source.of(PLAN, Rows(found, schema=SCHEMA), str(folder), run=run)


def compute(source: Source, *, settled: bool = True) -> None:
    """Writes what isn't done."""
    writer = ShardWriter(folder=source.folder, schema=SCHEMA.append(pa.field(ROW_DIGEST, pa.string())), run=source.run)
    for part in source.rows.parts:
        table = source.todo(part)
        if table.num_rows:
            nothing = pa.nulls(table.num_rows, pa.string())
            writer.write(table.append_column("error_stage", nothing).append_column("error_reason", nothing))
        if settled:
            settle(source, part)


def shards(folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in folder.glob("shards/*/*.parquet"):
        found.setdefault(path.parent.name, []).extend(pq.read_table(path)["image_id"].to_pylist())
    return {part: sorted(ids) for part, ids in found.items()}


def left(source: Source) -> dict[str, list[str]]:
    return {part.name: source.todo(part)["image_id"].to_pylist() for part in source.rows.parts}


def test_the_same_parts_move_nothing(tmp_path: Path) -> None:
    first = make_source(tmp_path, 1, a=["1", "2"])
    assert not file_moved_rows(first)
    assert json.loads((tmp_path / PARTS_FILE).read_text()) == {"a": 2}
    compute(first)
    assert not file_moved_rows(make_source(tmp_path, 2, a=["1", "2"]))


@pytest.mark.parametrize("settled", [True, False])
def test_rows_are_found_in_parts_that_are_there_and_that_are_gone(tmp_path: Path, settled: bool) -> None:
    first = make_source(tmp_path, 1, a=["1", "2", "3"], b=["4", "5"])
    file_moved_rows(first)
    compute(first, settled=settled)
    now = {"a": ["1", "4"], "c": ["2", "5", "6"]}
    assert file_moved_rows(make_source(tmp_path, 2, **now))
    source = make_source(tmp_path, 2, **now)
    assert left(source) == {"a": [], "c": ["6"]}
    assert not list(tmp_path.glob("*/b/*")), "nothing is left of a part that is gone"
    assert not list(tmp_path.glob("moving/**/*.parquet"))
    compute(source)
    assert shards(tmp_path) == {"a": ["1", "4"], "c": ["2", "5", "6"]}


def test_a_part_of_which_no_row_is_found_stays(tmp_path: Path) -> None:
    """Somebody's other manifest, by mistake: its outputs aren't deleted."""
    first = make_source(tmp_path, 1, a=["1", "2"])
    file_moved_rows(first)
    compute(first)
    other = make_source(tmp_path, 2, z=["7"])
    assert not file_moved_rows(other)
    compute(other)
    assert shards(tmp_path) == {"a": ["1", "2"], "z": ["7"]}
