import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray import cloudpickle

from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.schema import QUARANTINE
from raypipe.stages.base import Row, Stage
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, rows_per_block, run_stream
from raypipe.streams.sink import write_shard

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("number", pa.int64())])


class Count(Stage):
    """Notes each id that it computes, in a file of its own, and fails where it is told to."""

    reads = ("image_id",)
    writes = pa.schema([pa.field("number", pa.int64())])

    def __init__(
        self, *, log: str, bad: tuple[str, ...] = (), crash: tuple[str, ...] = (), away: tuple[str, ...] = ()
    ) -> None:
        self.log = Path(log)
        self.away = away
        self.bad = bad
        self.crash = crash

    def process(self, row: Row) -> Row:
        name = row["image_id"]
        if name in self.crash:
            raise RuntimeError("the machine is gone")
        with (self.log / name).open("a") as file:
            file.write("x")
        if name in self.away and (self.log / name).stat().st_size < 3:
            raise ConnectionResetError("the storage is away")
        if name in self.bad:
            raise ValueError("bad row")
        return {"number": len(name)}


def make_stream(tmp_path: Path, **budget: Any) -> Stream:
    return Stream(
        record=Record(stage="count", config={}, inputs={}),
        out=str(tmp_path / "out"),
        schema=SCHEMA,
        classes=("cat",),
        budget=Budget(**budget),
        rows_per_shard=4,
    )


def make_part(tmp_path: Path, names: list[str], **args: Any) -> Part:
    (tmp_path / "log").mkdir(exist_ok=True)
    steps = [Step(stage=Count, args={"log": str(tmp_path / "log"), **args}, num_actors=2)]
    return Part(pa.table({"image_id": names}), steps)


def computed(tmp_path: Path) -> dict[str, int]:
    return {path.name: len(path.read_text()) for path in (tmp_path / "log").iterdir()}


NAMES = [f"image{index}" for index in range(21)]


def test_every_row_once_and_quarantine_counted(local_ray: None, tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    summary = run_stream(stream, make_part(tmp_path, NAMES[:10], bad=("image3",)), make_part(tmp_path, NAMES[10:]))
    assert (summary.num_rows, summary.num_finished, summary.num_quarantined) == (21, 20, 1)
    rows = read_shards(stream.folder + "/shards", schema=SCHEMA)
    assert sorted(rows["image_id"].to_pylist()) == sorted(set(NAMES) - {"image3"})
    quarantine = read_shards(stream.folder + "/quarantine", schema=QUARANTINE).to_pylist()
    assert quarantine == [{"image_id": "image3", "stage": "Count", "reason": "ValueError: bad row"}]
    again = run_stream(stream, make_part(tmp_path, NAMES))
    assert again == summary
    assert set(computed(tmp_path).values()) == {1}


def test_an_interrupted_stream_goes_on_where_it_was(local_ray: None, tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    with pytest.raises(Exception, match="the machine is gone"):
        run_stream(stream, make_part(tmp_path, NAMES, crash=("image20",)))
    done = set(read_shards(stream.folder + "/shards", columns=["image_id"], schema=SCHEMA)["image_id"].to_pylist())
    before = computed(tmp_path)
    summary = run_stream(stream, make_part(tmp_path, NAMES))
    assert summary.num_finished == 21
    assert summary.num_computed == 21 - len(done)
    after = computed(tmp_path)
    assert all(after[name] == before[name] for name in done)


def test_budget_fails_the_run_and_says_where_to_look(local_ray: None, tmp_path: Path) -> None:
    stream = make_stream(tmp_path, max_rows=1)
    with pytest.raises(BudgetExceeded, match=r"2 of 21 rows are in quarantine, allowed are 1\..*image3: ValueError"):
        run_stream(stream, make_part(tmp_path, NAMES, bad=("image3", "image4")))


def test_budget_stops_the_stream_before_its_end(local_ray: None, tmp_path: Path) -> None:
    names = [f"image{index:04d}" for index in range(2000)]
    stream = make_stream(tmp_path, max_rows=5, max_fraction=0)
    with pytest.raises(BudgetExceeded, match=r"of 2000 rows are in quarantine, allowed are 5\."):
        run_stream(stream, make_part(tmp_path, names, bad=tuple(names)))
    assert len(computed(tmp_path)) < 1000


def test_what_passes_by_itself_is_tried_again(local_ray: None, tmp_path: Path) -> None:
    summary = run_stream(make_stream(tmp_path), make_part(tmp_path, NAMES, away=("image3", "image7")))
    assert (summary.num_finished, summary.num_quarantined) == (21, 0)
    assert computed(tmp_path)["image3"] == 3


def test_rows_that_a_late_writer_doubled_are_counted_once(local_ray: None, tmp_path: Path) -> None:
    stream = make_stream(tmp_path)
    run_stream(stream, make_part(tmp_path, NAMES))
    shards = Path(stream.folder, "shards")
    late = pa.table({"image_id": ["image3", "image20"], "number": [6, 7]})
    write_shard(stream.folder, "shards", late.cast(SCHEMA))
    next(path for path in shards.iterdir() if "image5" in pq.read_table(path)["image_id"].to_pylist()).unlink()
    Path(stream.folder, "summary.json").unlink()
    assert run_stream(stream, make_part(tmp_path, NAMES)).num_finished == 21
    rows = read_shards(str(shards), schema=SCHEMA).to_pylist()
    assert sorted(row["image_id"] for row in rows) == sorted(NAMES)


@pytest.mark.parametrize(("num_rows", "rows"), [(0, 8), (100, 8), (2_048, 16), (20_000, 32), (1_000_000, 32)])
def test_blocks_grow_with_the_stream_up_to_a_shard(num_rows: int, rows: int) -> None:
    assert rows_per_block(num_rows, rows_per_shard=32) == rows
    assert rows_per_block(num_rows, rows_per_shard=4) == 4


def test_missing_columns_are_found_before_anything_starts(tmp_path: Path) -> None:
    part = make_part(tmp_path, NAMES)
    with pytest.raises(ValueError, match="Count reads"):
        run_stream(make_stream(tmp_path), Part(part.rows.rename_columns(["name"]), part.steps))
