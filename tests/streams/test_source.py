"""Sources read by tasks, part by part, with the limit under which the driver reads rows itself set to none."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

from raypipe.cluster.resources import PoolPlan
from raypipe.config import Budget
from raypipe.data.rows import InMemory, Part, Rows
from raypipe.outputs.load import Load
from raypipe.results import StreamSummary
from raypipe.stages.base import Row, Stage
from raypipe.streams import tasks
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, run_stream

cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("number", pa.int64())])


@dataclass(kw_only=True)
class Measure(Stage):
    """The length of the URI, or of what was loaded."""

    column: str = "image_uri"

    writes = pa.schema([pa.field("number", pa.int64())])

    @property
    def reads(self) -> tuple[str, ...]:
        return ("image_id", self.column)

    def process(self, row: Row) -> Row:
        if row["image_id"].endswith("bad"):
            raise ValueError("bad row")
        value = row[self.column]
        return {"number": len(value) if isinstance(value, str) else 100 * value}


def make_rows(**parts: list[str]) -> Rows:
    tables = {name: pa.table({"image_id": ids, "image_uri": [f"{i}.jpg" for i in ids]}) for name, ids in parts.items()}
    schema = next(iter(tables.values())).schema
    found = tuple(Part(name, table.num_rows, InMemory(table)) for name, table in tables.items())
    return Rows(found, schema=schema)


def run(plan: Plan, rows: Rows, out: Path, **options: Any) -> StreamSummary:
    pools = plan.pools(gpus=False)
    resources = PoolPlan(
        name=pools[0].name, kind="finish", min_actors=1, max_actors=2, cpus=1, gpus=0, threads=1, memory=None
    )
    settings = Settings(out=str(out), budget=Budget(max_rows=3), rows_per_block=4, **options)
    return run_stream(plan, rows, settings, lambda: [(pool, resources) for pool in pools])[1]


def numbers(out: Path, name: str) -> dict[str, dict[str, int]]:
    (folder,) = (out / name).iterdir()
    found: dict[str, dict[str, int]] = {}
    for shard in folder.glob("shards/*/*.parquet"):
        rows = {row["image_id"]: row["number"] for row in pq.read_table(shard).to_pylist()}
        found.setdefault(shard.parent.name, {}).update(rows)
    return found


@pytest.fixture(autouse=True)
def all_in_tasks(monkeypatch: pytest.MonkeyPatch, local_ray: None) -> None:
    monkeypatch.setattr(tasks, "FEW_ROWS", 0)


def test_parts_are_read_settled_and_taken_up_by_tasks(tmp_path: Path) -> None:
    first = Plan(name="first", stages=(Measure(),), schema=SCHEMA, classes=("cat",))
    ids = {name: [f"{name}{index}" for index in range(11)] for name in ("a", "b", "c")}
    ids["b"][3] = "b-bad"
    rows = make_rows(**ids)
    summary = run(first, rows, tmp_path)
    assert (summary.num_rows, summary.num_finished, summary.num_quarantined) == (33, 32, 1)
    found = numbers(tmp_path, "first")
    expected = {name: {i: len(i) + 4 for i in names if i != "b-bad"} for name, names in ids.items()}
    assert found == expected
    assert run(first, rows, tmp_path).num_computed == 0
    grown = make_rows(**ids | {"c": [*ids["c"], "c11"], "d": ["d0"]})
    assert run(first, grown, tmp_path).num_computed == 2

    load = Load(outputs=first.artifact(str(tmp_path)), columns=SCHEMA.remove(0), names=("length",))
    second = Plan(name="second", takes=(load,), stages=(Measure(column="length"),), schema=SCHEMA, classes=("cat",))
    summary = run(second, grown, tmp_path)
    assert (summary.num_rows, summary.num_finished) == (34, 34), "a row without an output there is left out"
    found = numbers(tmp_path, "second")
    assert found["a"] == {i: 100 * number for i, number in expected["a"].items()}
    assert found["d"] == {"d0": 600}


def test_rows_that_move_to_another_part_are_filed_anew(tmp_path: Path) -> None:
    plan = Plan(name="first", stages=(Measure(),), schema=SCHEMA, classes=("cat",))
    run(plan, make_rows(a=["a0", "a1", "x-bad"], b=["b0", "b1"], c=["c0"]), tmp_path)
    moved = make_rows(a=["a0", "b1", "c0"], d=["a1", "b0", "x-bad", "new"])
    summary = run(plan, moved, tmp_path)
    assert (summary.num_rows, summary.num_computed, summary.num_quarantined) == (7, 1, 1)
    assert numbers(tmp_path, "first") == {
        "a": {"a0": 6, "b1": 6, "c0": 6},
        "d": {"a1": 6, "b0": 6, "new": 7},
    }
    assert run(plan, moved, tmp_path).num_computed == 0
