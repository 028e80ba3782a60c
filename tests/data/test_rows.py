"""Rows that are read part by part, by tables of a few rows."""

import pickle
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ray import cloudpickle

from raypipe.data.manifest import Manifest
from raypipe.data.parts import open_manifest, write_manifest
from raypipe.data.rows import ONLY_PART, InMemory, Part, Rows

TABLES = {
    "first": pa.table({"image_id": ["a", "b", "c"], "number": [1, 2, 3]}),
    "second": pa.table({"image_id": ["d", "e"], "number": [4, 5]}),
}


@pytest.fixture
def rows() -> Rows:
    """Five rows in two parts."""
    parts = [Part(name, table.num_rows, InMemory(table)) for name, table in TABLES.items()]
    return Rows(tuple(parts), schema=TABLES["first"].schema)


def ids(rows: Rows) -> dict[str, list[str]]:
    """Ids of what is read of each part."""
    return {part.name: rows.read(part)["image_id"].to_pylist() for part in rows.read_parts}


def test_a_table_is_one_part() -> None:
    rows = Rows.of(TABLES["first"])
    (part,) = rows.parts
    assert (part.name, part.num_rows, part.uri) == (ONLY_PART, 3, None)
    assert rows.read(part).equals(TABLES["first"])
    assert (rows.most, rows.columns) == (3, ["image_id", "number"])


def test_nothing_is_read_before_it_is_asked_for() -> None:
    def read() -> pa.Table:
        pytest.fail("nobody has asked")

    rows = Rows((Part("p", 7, read),), schema=TABLES["first"].schema)
    changed = rows.where(lambda table: pc.greater(table["number"], 3)).only({"p": ["a"]}).select(["number"])
    assert (changed.most, changed.columns) == (1, ["number"])


def test_changes_come_in_their_order_and_see_their_part(rows: Rows) -> None:
    def named(table: pa.Table, part: Part) -> pa.Table:
        return table.append_column("part", pa.array([part.name] * table.num_rows, pa.string()))

    changed = rows.where(lambda table: pc.greater(table["number"], 2)).then(named).select(["part", "image_id"])
    assert changed.columns == ["part", "image_id"]
    assert [changed.read(part).to_pylist() for part in changed.parts] == [
        [{"part": "first", "image_id": "c"}],
        [{"part": "second", "image_id": "d"}, {"part": "second", "image_id": "e"}],
    ]
    assert ids(rows) == {"first": ["a", "b", "c"], "second": ["d", "e"]}, "the rows themselves stay"


def test_of_drawn_rows_only_their_parts_are_read(rows: Rows) -> None:
    drawn = rows.only({"second": ["e"]})
    assert [part.name for part in drawn.read_parts] == ["second"]
    assert [part.name for part in drawn.parts] == ["first", "second"], "what a part is doesn't depend on the draw"
    assert ids(drawn) == {"second": ["e"]}
    assert drawn.most == 1
    assert rows.only({}).read_parts == ()


def test_an_id_is_looked_for_in_its_own_part(rows: Rows) -> None:
    assert ids(rows.only({"first": ["a", "d"], "second": ["d"]})) == {"first": ["a"], "second": ["d"]}


def test_most_counts_what_may_be_left(rows: Rows) -> None:
    assert rows.most == 5
    assert rows.where(lambda table: pc.equal(table["number"], 0)).most == 5, "nobody has looked"
    assert rows.only({"first": ["a", "b"], "second": ["d"]}).most == 3


def test_a_part_travels_without_the_rows_of_a_stored_manifest(tmp_path: Path) -> None:
    """A task on the cluster gets names, and reads where it runs."""
    manifest = Manifest.from_rows(
        [{"image_id": f"image{number:05}", "image_uri": "i.jpg", "labels": []} for number in range(2000)], ["cat"]
    )
    write_manifest(manifest, str(tmp_path / "manifest.parquet"))
    rows = Rows(open_manifest(str(tmp_path / "manifest.parquet")).parts).select(["image_id"])
    sent = cloudpickle.dumps(rows)
    assert len(sent) < 10_000
    arrived = pickle.loads(sent)  # noqa: S301
    assert arrived.read(arrived.parts[0])["image_id"].to_pylist() == manifest.table["image_id"].to_pylist()
