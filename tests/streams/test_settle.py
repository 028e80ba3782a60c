from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import compute as pc

from raypipe.data.rows import ONLY_PART, Rows
from raypipe.outputs.lease import LeaseLost
from raypipe.outputs.ledger import INDEX, QUARANTINED, read_ledger, write_entries
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.schema import QUARANTINE, ROW_DIGEST
from raypipe.streams import settle as module
from raypipe.streams.plan import Plan
from raypipe.streams.settle import Settled, settle
from raypipe.streams.source import Source

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("mask", pa.binary())])
SHARDS = SCHEMA.append(pa.field(ROW_DIGEST, pa.string())).with_metadata({"made by": "a test"})


def make_source(folder: Path, ids: list[str], *, asked: list[str] | None = None, run: int = 1) -> Source:
    rows = Rows.of(pa.table({"image_id": ids}))
    if asked is not None:
        rows = rows.where(lambda table: pc.is_in(table["image_id"], pa.array(asked)))
    plan = Plan(name="masks", stages=(), schema=SCHEMA, classes=())
    return Source.of(plan, rows, str(folder), run=run)


def write(
    source: Source, ids: list[str], *, bad: tuple[str, ...] = (), size: int = 10, digest: str | None = None
) -> None:
    """Writes rows as a worker does."""
    (part,) = source.rows.parts
    wanted = source.wanted(part)
    digests = dict(zip(wanted["image_id"].to_pylist(), wanted[ROW_DIGEST].to_pylist(), strict=True))
    table = pa.table(
        {
            "image_id": ids,
            "mask": pa.array([bytes([index % 251]) * size for index in range(len(ids))], pa.binary()),
            ROW_DIGEST: [digest or digests.get(i, "gone") for i in ids],
            PART: [ONLY_PART] * len(ids),
            PART_TODO: [len(ids)] * len(ids),
            "error_stage": pa.array(["S" if i in bad else None for i in ids], pa.string()),
            "error_reason": pa.array(["broken" if i in bad else None for i in ids], pa.string()),
        }
    )
    ShardWriter(folder=source.folder, schema=SHARDS, run=source.run).write(table)


def run(source: Source) -> Settled:
    return settle(source, source.rows.parts[0])


def shards(folder: Path) -> list[pa.Table]:
    return [pq.read_table(path) for path in sorted(folder.glob("shards/*/*.parquet"))]


def ids_of(folder: Path) -> list[str]:
    return sorted(name for table in shards(folder) for name in table["image_id"].to_pylist())


def files(folder: Path) -> dict[str, int]:
    return {kind: len(list(folder.glob(f"{kind}/*/*"))) for kind in ("attempts", "shards", "index", "quarantine")}


def test_a_part_that_is_not_done_stays_as_it_is(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b", "c"])
    write(source, ["a", "b"])
    assert run(source) == Settled(3, 2, 0)
    assert files(tmp_path) == {"attempts": 1, "shards": 0, "index": 1, "quarantine": 0}


def test_a_part_that_is_done_has_one_shard_and_one_index(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b", "c", "d"])
    write(source, ["c", "d"], bad=("d",))
    write(source, ["a", "b"])
    assert run(source) == Settled(4, 3, 1, ("d: broken",))
    assert files(tmp_path) == {"attempts": 0, "shards": 1, "index": 1, "quarantine": 1}
    (table,) = shards(tmp_path)
    assert table["image_id"].to_pylist() == ["a", "b", "c"]
    assert table.schema.metadata[b"made by"] == b"a test"
    ledger = read_ledger(str(tmp_path), ONLY_PART)
    places = {row["image_id"]: (row["shard"].split("/")[0], row["row"]) for row in ledger.finished.to_pylist()}
    assert places == {"a": ("shards", 0), "b": ("shards", 1), "c": ("shards", 2)}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")}
    assert run(make_source(tmp_path, ["a", "b", "c", "d"], run=2)) == Settled(4, 3, 1, ("d: broken",))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.parquet")} == before, "nothing is written again"


def test_shards_are_large_where_there_is_that_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 10_000)
    ids = [f"i{number:02}" for number in range(40)]
    source = make_source(tmp_path, ids)
    rng = iter(range(10**6))
    for start in range(0, 40, 4):
        write(source, ids[start : start + 4], size=3000 + next(rng))
    run(source)
    assert ids_of(tmp_path) == ids
    first = {path.name for path in tmp_path.glob("shards/*/*")}
    grown = make_source(tmp_path, [*ids, "new"], run=2)
    write(grown, ["new"])
    run(grown)
    assert ids_of(tmp_path) == [*ids, "new"]
    sizes = {path.name: path.stat().st_size for path in tmp_path.glob("shards/*/*")}
    assert len(first - sizes.keys()) <= 1, "large shards stay as they are"


def test_superseded_rows_go(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b", "c"])
    write(source, ["a", "b", "removed", "c"])
    write(source, ["b"], digest="as it was before")
    write(source, ["c", "a"])
    assert run(source) == Settled(3, 3, 0)
    assert ids_of(tmp_path) == ["a", "b", "c"]
    digests = {row[ROW_DIGEST] for table in shards(tmp_path) for row in table.to_pylist()}
    assert "as it was before" not in digests


def test_rows_that_were_not_asked_for_stay(tmp_path: Path) -> None:
    run_all = make_source(tmp_path, ["a", "b", "c"])
    write(run_all, ["a", "b", "c"])
    run(run_all)
    assert run(make_source(tmp_path, ["a", "b", "c"], asked=["b"], run=2)) == Settled(1, 1, 0)
    assert ids_of(tmp_path) == ["a", "b", "c"]


def test_a_finished_row_leaves_the_quarantine(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b"])
    write(source, ["a", "b"], bad=("b",))
    write(source, ["b"])
    assert run(source) == Settled(2, 2, 0)
    assert files(tmp_path)["quarantine"] == 0


def test_a_late_shard_of_a_settled_part_is_gone_after_the_next_change(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b"])
    write(source, ["a", "b"])
    run(source)
    write(source, ["a", "b"])  # a machine that was believed to be gone
    assert ids_of(tmp_path) == ["a", "b"]
    assert run(make_source(tmp_path, ["a", "b"], run=2)) == Settled(2, 2, 0)
    assert files(tmp_path) == {"attempts": 0, "shards": 1, "index": 1, "quarantine": 0}


@pytest.mark.parametrize("step", ["index", "deletion"])
def test_an_interruption_anywhere_is_taken_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    source = make_source(tmp_path, ["a", "b", "c"])
    write(source, ["a", "b"], bad=("b",))
    write(source, ["c"])

    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("the machine is gone")

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_entries", fail) if step == "index" else patch.setattr(
            module.storage, "delete_many", fail
        )
        with pytest.raises(ConnectionError):
            run(source)
    assert run(make_source(tmp_path, ["a", "b", "c"], run=2)) == Settled(3, 2, 1, ("b: broken",))
    assert ids_of(tmp_path) == ["a", "c"]
    assert files(tmp_path) == {"attempts": 0, "shards": 1, "index": 1, "quarantine": 1}


def test_a_run_that_has_lost_its_lease_settles_nothing(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a", "b"])
    write(source, ["a", "b"])
    (tmp_path / "lease").mkdir()
    (tmp_path / "lease" / "00000002.json").write_text("{}")
    with pytest.raises(LeaseLost, match=r"another run \(number 2\) has begun"):
        run(source)
    assert shards(tmp_path) == []
    assert run(make_source(tmp_path, ["a", "b"], run=2)) == Settled(2, 2, 0)


def test_quarantine_is_readable_by_anybody(tmp_path: Path) -> None:
    source = make_source(tmp_path, ["a"])
    write_entries(
        str(tmp_path),
        QUARANTINED,
        ONLY_PART,
        pa.table({"image_id": ["a"], "stage": ["S"], "reason": ["R"], ROW_DIGEST: ["other"]}).cast(QUARANTINE),
        run=1,
    )
    assert run(source) == Settled(1, 0, 0), "of the row as it was before"
    assert pq.read_table(tmp_path / "quarantine").to_pylist()[0]["reason"] == "R"
    assert not list(tmp_path.glob(f"{INDEX}/*/*"))
