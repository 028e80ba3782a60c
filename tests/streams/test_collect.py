"""Few rows of many, from a manifest of two parts and the outputs of a stream."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from ray import cloudpickle
from stream_outputs import write_outputs, write_quarantine

from raypipe.artifacts import Artifact
from raypipe.data.rows import InMemory, Part, Rows
from raypipe.data.shards import ShardError
from raypipe.outputs.load import held
from raypipe.outputs.records import set_digest
from raypipe.streams import collect as module
from raypipe.streams import tasks
from raypipe.streams.collect import (
    collect,
    count,
    draw,
    draw_rows,
    drawn_ids,
    outputs_of,
    quarantined,
    reduce_outputs,
    rows_digest,
    with_ids,
)

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

OUTPUTS = pa.schema([pa.field("image_id", pa.string()), pa.field("split", pa.string()), pa.field("size", pa.int64())])
NAMES = [f"image{number:02}" for number in range(30)]


def make_rows(*sizes: int, names: list[str] = NAMES) -> Rows:
    """Rows in parts of some sizes."""
    parts, start = [], 0
    for number, size in enumerate(sizes):
        some = names[start : start + size]
        table = pa.table(
            [pa.array(some, pa.string()), pa.array(["train"] * len(some), pa.string())], ["image_id", "split"]
        )
        parts.append(Part(f"p{number}", table.num_rows, InMemory(table)))
        start += size
    return Rows(tuple(parts), schema=pa.schema([("image_id", pa.string()), ("split", pa.string())]))


@pytest.fixture(params=[True, False], ids=["here", "in tasks"])
def somewhere(request: pytest.FixtureRequest, local_ray: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rows are read by the driver, many by tasks."""
    if not request.param:
        monkeypatch.setattr(tasks, "FEW_ROWS", 0)


@pytest.fixture
def outputs(tmp_path: Path) -> Artifact:
    """Outputs of the first rows of each of two parts; the last one of the second is in quarantine."""
    folder = str(tmp_path / "masks")
    for part, names in (("p0", NAMES[:15]), ("p1", NAMES[20:25])):
        rows = [{"image_id": name, "split": "of the output", "size": int(name[-2:])} for name in names]
        write_outputs(folder, OUTPUTS, rows, part=part, rows_per_shard=4)
    write_quarantine(folder, {NAMES[29]: ("DecodeImages", "cut off")}, part="p1")
    return Artifact(folder, "m")


def test_all_rows_come_in_the_order_of_their_parts(somewhere: None) -> None:
    rows = make_rows(20, 0, 10)
    assert collect(rows)["image_id"].to_pylist() == NAMES
    assert count(rows) == 30
    assert count(rows.where(lambda table: pc.greater(table["image_id"], "image24"))) == 5


def test_no_rows_have_columns_all_the_same(outputs: Artifact) -> None:
    nothing = make_rows(20, 10).only({})
    table = collect(held(nothing, outputs))
    assert (table.num_rows, table.column_names[:3]) == (0, ["image_id", "split", "shard_uri"])
    assert count(nothing) == 0
    assert quarantined(outputs, nothing).column_names == ["image_id", "split", "error_stage", "error_reason"]
    assert rows_digest(nothing, ["image_id"]) == rows_digest(make_rows(0), ["image_id"])
    assert outputs_of(outputs, nothing, OUTPUTS).num_rows == 0


def test_draws_depend_on_ids_alone() -> None:
    drawn = [NAMES[index] for index in draw(NAMES, 10)]
    assert drawn == [NAMES[::-1][index] for index in draw(NAMES[::-1], 10)]
    assert set(drawn) != {NAMES[index] for index in draw(NAMES, 10, seed=1)}
    assert sorted(draw(NAMES, None)) == list(range(30))


def test_the_same_rows_are_drawn_however_they_are_parted(somewhere: None) -> None:
    drawn = {
        sizes: sorted(collect(draw_rows(make_rows(*sizes), 10))["image_id"].to_pylist())
        for sizes in ((30,), (20, 10), (1, 28, 1))
    }
    (found,) = {tuple(names) for names in drawn.values()}
    assert list(found) == sorted(NAMES[index] for index in draw(NAMES, 10))
    by_part = drawn_ids(make_rows(20, 10), 10)
    assert sorted(name for names in by_part.values() for name in names) == list(found)
    assert set(by_part["p1"]) <= set(NAMES[20:])


def test_a_draw_of_all_is_all() -> None:
    rows = make_rows(20, 10)
    assert draw_rows(rows, None) is rows
    assert count(draw_rows(rows, 100)) == 30


def test_some_images_by_their_ids() -> None:
    rows = with_ids(make_rows(20, 10), ["image25", "absent", "image03"])
    assert collect(rows)["image_id"].to_pylist() == ["image03", "image25"]


def test_a_set_is_known_whatever_its_order_and_parts(somewhere: None) -> None:
    columns = ["image_id", "split"]
    expected = set_digest(collect(make_rows(30)), columns)
    assert rows_digest(make_rows(20, 10), columns) == expected
    assert rows_digest(make_rows(5, 25, names=NAMES[::-1]), columns) == expected
    assert rows_digest(make_rows(20, 9), columns) != expected


def test_outputs_come_by_their_ids(somewhere: None, outputs: Artifact) -> None:
    rows = make_rows(20, 10)
    found = outputs_of(outputs, rows, OUTPUTS)
    assert found["image_id"].to_pylist() == [*NAMES[:15], *NAMES[20:25]]
    assert found["size"].to_pylist() == [*range(15), *range(20, 25)]
    few = outputs_of(outputs, with_ids(rows, ["image24", "image29", "image02"]), OUTPUTS)
    assert few["image_id"].to_pylist() == ["image02", "image24"]
    assert outputs_of(Artifact(outputs.uri + "-none", "m"), rows, OUTPUTS).equals(OUTPUTS.empty_table())


def test_parts_are_reduced_where_they_are_read(
    somewhere: None, outputs: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    def add(tables: Iterator[pa.Table], part: Part) -> tuple[str, int, set[str]]:
        everything = pa.concat_tables(tables)
        return part.name, sum(everything["size"].to_pylist()), set(everything["split"].to_pylist())

    columns = pa.schema([OUTPUTS.field("image_id"), OUTPUTS.field("size")])
    found = list(reduce_outputs(outputs, make_rows(20, 10), columns, add))
    assert found == [("p0", sum(range(15)), {"train"}), ("p1", sum(range(20, 25)), {"train"})]
    replaced = list(reduce_outputs(outputs, make_rows(20, 10), OUTPUTS, add))
    assert [splits for _, _, splits in replaced] == [{"of the output"}] * 2, "the outputs' column is the one"


def test_few_rows_are_in_memory_at_a_time(outputs: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    def sizes(tables: Iterator[pa.Table], _: Part) -> list[int]:
        return [table.num_rows for table in tables]

    monkeypatch.setattr(module, "_ROWS_AT_A_TIME", 4)
    assert list(reduce_outputs(outputs, make_rows(20, 10), OUTPUTS, sizes)) == [[4, 4, 4, 3], [4, 1]]


def test_a_damaged_shard_is_named(outputs: Artifact) -> None:
    shard = next(Path(outputs.uri).glob("shards/p0/*.parquet"))
    shard.write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ShardError, match=rf"{shard.name} can't be read"):
        outputs_of(outputs, make_rows(20, 10), OUTPUTS)


def test_rows_in_quarantine_come_with_their_reasons(somewhere: None, outputs: Artifact) -> None:
    reason = {"error_stage": "DecodeImages", "error_reason": "cut off"}
    assert quarantined(outputs, make_rows(20, 10)).to_pylist() == [{"image_id": NAMES[29], "split": "train", **reason}]
    assert quarantined(outputs, make_rows(20, 9)).num_rows == 0, "a row that isn't asked for"
    assert quarantined(outputs, make_rows(20, 10).select(["image_id"])).column_names == ["image_id", *reason]
