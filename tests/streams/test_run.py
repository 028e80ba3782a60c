import shutil
import sys
import threading
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

from raypipe.cluster.resources import PoolPlan
from raypipe.config import Budget
from raypipe.data.rows import ONLY_PART, Rows
from raypipe.data.shards import read_shards
from raypipe.outputs.lease import Lease
from raypipe.outputs.ledger import read_ledger, write_entries
from raypipe.outputs.records import MixedOutputs, open_folder
from raypipe.outputs.sink import write_shard
from raypipe.results import StreamSummary
from raypipe.schema import QUARANTINE
from raypipe.stages.base import Row, Stage, with_error_columns
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, rows_per_block, run_stream

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("number", pa.int64())])


@dataclass(kw_only=True)
class Count(Stage):
    """Notes each id that it computes, in a file of its own, and fails where it is told to."""

    log: str
    bad: tuple[str, ...] = ()
    away: tuple[str, ...] = ()

    reads = ("image_id", "image_uri")
    writes = pa.schema([pa.field("number", pa.int64())])

    def process(self, row: Row) -> Row:
        name, log = row["image_id"], Path(self.log)
        with (log / name).open("a") as file:
            file.write("x")
        if name in self.away and (log / name).stat().st_size < 3:
            raise ConnectionResetError("the storage is away")
        if name in self.bad:
            raise ValueError("bad row")
        return {"number": len(row["image_uri"])}


def make_rows(names: list[str], uri: str = "a.jpg") -> pa.Table:
    return pa.table({"image_id": names, "image_uri": [uri] * len(names)})


def run(tmp_path: Path, rows: pa.Table | Rows, *, budget: dict[str, Any] | None = None, **fails: Any) -> StreamSummary:
    (tmp_path / "log").mkdir(exist_ok=True)
    # What fails is no setting: the same plan goes on.
    stage = Count(log=str(tmp_path / "log"))
    plan = Plan(name="count", stages=(stage,), schema=SCHEMA, classes=("cat",))
    (pool,) = plan.pools(gpus=False)
    for name, value in fails.items():
        setattr(stage, name, value)
    resources = PoolPlan(
        name=pool.name, kind="finish", min_actors=1, max_actors=2, cpus=1, gpus=0, threads=1, memory=None
    )
    fixed = Plan(name="count", stages=(Count(log=str(tmp_path / "log")),), schema=SCHEMA, classes=("cat",))
    settings = Settings(out=str(tmp_path / "out"), budget=Budget(**budget or {}), rows_per_block=4)
    rows = Rows.of(rows) if isinstance(rows, pa.Table) else rows
    artifact, summary = run_stream(fixed, rows, settings, lambda: [(pool, resources)])
    assert artifact.uri == folder(tmp_path)
    return summary


def folder(tmp_path: Path) -> str:
    (found,) = (tmp_path / "out" / "count").iterdir()
    return str(found)


def finished(tmp_path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_shards(folder(tmp_path) + "/shards", schema=SCHEMA).to_pylist()
    return rows


def computed(tmp_path: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in (tmp_path / "log").iterdir()}


NAMES = [f"image{index}" for index in range(21)]


def test_every_row_once_and_quarantine_counted(local_ray: None, tmp_path: Path) -> None:
    summary = run(tmp_path, make_rows(NAMES), bad=("image3",))
    assert (summary.num_rows, summary.num_finished, summary.num_quarantined) == (21, 20, 1)
    assert sorted(row["image_id"] for row in finished(tmp_path)) == sorted(set(NAMES) - {"image3"})
    quarantine = read_shards(folder(tmp_path) + "/quarantine", schema=QUARANTINE).to_pylist()
    assert [(row["image_id"], row["stage"], row["reason"]) for row in quarantine] == [
        ("image3", "Count", "ValueError: bad row")
    ]
    again = run(tmp_path, make_rows(NAMES))
    assert (again.num_finished, again.num_quarantined, again.num_computed) == (20, 1, 0)
    assert set(computed(tmp_path).values()) == {1}


def test_rows_that_come_in_error_are_quarantined_as_they_are(local_ray: None, tmp_path: Path) -> None:
    rows = with_error_columns(make_rows(NAMES))
    index = rows.column_names.index("error_stage")
    stages = [("FetchImages" if name == "image5" else None) for name in NAMES]
    rows = rows.set_column(index, "error_stage", pa.array(stages, pa.string()))
    rows = rows.set_column(index + 1, "error_reason", pa.array([stage and "it is gone" for stage in stages]))
    assert run(tmp_path, rows).num_quarantined == 1
    assert "image5" not in computed(tmp_path)
    (row,) = read_shards(folder(tmp_path) + "/quarantine", schema=QUARANTINE).to_pylist()
    assert (row["image_id"], row["stage"], row["reason"]) == ("image5", "FetchImages", "it is gone")


def test_an_interrupted_stream_goes_on_where_it_was(
    local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checks = count()

    def check(_: Lease) -> None:
        # The thread that keeps the lease asks, too, and so does its release.
        if threading.current_thread() is threading.main_thread() and next(checks) == 2:
            raise RuntimeError("the driver is gone")

    with monkeypatch.context() as interrupted:
        interrupted.setattr(Lease, "check", check)
        with pytest.raises(RuntimeError, match="the driver is gone"):
            run(tmp_path, make_rows(NAMES))
    done = set(read_ledger(folder(tmp_path), ONLY_PART).finished["image_id"].to_pylist())
    assert done
    assert finished(tmp_path) == [], "nobody but raypipe sees a part that isn't settled"
    before = computed(tmp_path)
    summary = run(tmp_path, make_rows(NAMES))
    assert (summary.num_finished, summary.num_computed) == (21, 21 - len(done))
    after = computed(tmp_path)
    assert all(after[name] == before[name] for name in done)


def test_a_manifest_grows_and_a_row_that_changes_is_computed_again(local_ray: None, tmp_path: Path) -> None:
    first = run(tmp_path, make_rows(NAMES[:10]))
    summary = run(tmp_path, make_rows(NAMES))
    assert (summary.num_rows, summary.num_finished, summary.num_computed) == (21, 21, 11)
    assert summary.total_seconds == pytest.approx(first.seconds + summary.seconds, abs=0.02)
    changed = pa.concat_tables([make_rows(NAMES[:3], "longer.jpg"), make_rows(NAMES[3:])])
    summary = run(tmp_path, changed)
    assert (summary.num_finished, summary.num_computed) == (21, 3)
    rows = finished(tmp_path)
    assert sorted(row["image_id"] for row in rows) == sorted(NAMES)
    assert {row["image_id"] for row in rows if row["number"] == len("longer.jpg")} == set(NAMES[:3])
    few = Rows.of(make_rows(NAMES, "longer.jpg")).where(lambda rows: pc.is_in(rows["image_id"], pa.array(NAMES[:5])))
    assert run(tmp_path, few).num_computed == 2
    assert len(finished(tmp_path)) == 21, "outputs of rows that weren't asked for stay"
    assert run(tmp_path, make_rows(NAMES[:5], "longer.jpg")).num_computed == 0
    assert len(finished(tmp_path)) == 5, "those of rows that the manifest doesn't have any more go"


@pytest.mark.parametrize(
    ("gone", "num_computed"), [("quarantine", 1), ("shards", 20), ("index", 20), ("parts.json", 0), ("summary.json", 0)]
)
def test_what_is_deleted_is_computed_again(local_ray: None, tmp_path: Path, gone: str, num_computed: int) -> None:
    run(tmp_path, make_rows(NAMES), bad=("image3",))
    path = Path(folder(tmp_path), gone)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    summary = run(tmp_path, make_rows(NAMES))
    assert summary.num_computed == num_computed
    assert summary.num_finished == (21 if gone == "quarantine" else 20)
    assert len(finished(tmp_path)) == summary.num_finished
    assert not list(Path(folder(tmp_path)).glob("attempts/*/*"))


def test_budget_fails_the_run_and_says_where_to_look(local_ray: None, tmp_path: Path) -> None:
    with pytest.raises(BudgetExceeded, match=r"2 of 21 rows are in quarantine, allowed are 1\..*image3: bad row"):
        run(tmp_path, make_rows(NAMES), budget={"max_rows": 1}, bad=("image3", "image4"))


def test_budget_stops_the_stream_before_its_end(local_ray: None, tmp_path: Path) -> None:
    names = [f"image{index:04d}" for index in range(2000)]
    with pytest.raises(BudgetExceeded, match=r"of 2000 rows are in quarantine, allowed are 5\."):
        run(tmp_path, make_rows(names), budget={"max_rows": 5, "max_fraction": 0}, bad=tuple(names))
    assert len(computed(tmp_path)) < 1000


def test_what_passes_by_itself_is_tried_again(local_ray: None, tmp_path: Path) -> None:
    summary = run(tmp_path, make_rows(NAMES), away=("image3", "image7"))
    assert (summary.num_finished, summary.num_quarantined) == (21, 0)
    assert computed(tmp_path)["image3"] == 3


def test_rows_that_a_late_writer_doubled_are_counted_once(local_ray: None, tmp_path: Path) -> None:
    run(tmp_path, make_rows(NAMES))
    (path,) = Path(folder(tmp_path)).glob("shards/*/*.parquet")
    shards = pq.read_table(path)
    late = shards.filter(pa.array([name in ("image3", "image20") for name in shards["image_id"].to_pylist()]))
    entries = write_shard(folder(tmp_path), "attempts", ONLY_PART, late)
    assert len(finished(tmp_path)) == 21, "no reader sees it"
    write_entries(folder(tmp_path), "index", ONLY_PART, entries, run=1)
    assert run(tmp_path, make_rows(NAMES)).num_finished == 21
    assert not list(Path(folder(tmp_path)).glob("attempts/*/*"))
    assert sorted(row["image_id"] for row in finished(tmp_path)) == sorted(NAMES)


@pytest.mark.parametrize(
    ("num_rows", "rows"),
    [(0, 8), (100, 8), (2_048, 16), (20_000, 32), (1_000_000, 32), (10_000_000, 200), (10**9, 256)],
)
def test_blocks_grow_with_the_stream(num_rows: int, rows: int) -> None:
    assert rows_per_block(num_rows) == rows


def test_missing_columns_are_found_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Count reads"):
        run(tmp_path, make_rows(NAMES).rename_columns(["name", "image_uri"]))


def test_a_folder_of_other_outputs_is_refused(tmp_path: Path) -> None:
    open_folder(str(tmp_path), {"stages": [{"class": "Count", "number": 1}]})
    with pytest.raises(MixedOutputs, match=r"stages was .*'number': 1.*, is .*'number': 2"):
        open_folder(str(tmp_path), {"stages": [{"class": "Count", "number": 2}]})
