import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray.data
from ray import cloudpickle
from ray.data import ActorPoolStrategy, DataContext, TaskPoolStrategy

from raypipe.cluster.resources import PoolPlan
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.schema import ROW_DIGEST
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams import execute as module
from raypipe.streams.calm import Calm
from raypipe.streams.execute import CALLS_PER_ACTOR, MAX_RETRIES, execute
from raypipe.streams.job import INDEX
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(kw_only=True)
class Whereabouts(Stage):
    """Notes the process that a row is in, and how often that was set up."""

    pool: Kind = "finish"

    writes = pa.schema(
        [pa.field("process", pa.int64()), pa.field("setups", pa.int64()), pa.field("device", pa.string())]
    )

    @property
    def reads(self) -> tuple[str, ...]:
        return ("image_id",)

    @property
    def kind(self) -> Kind:
        return self.pool

    def setup(self, device: str) -> None:
        os.environ["SETUPS"] = str(int(os.environ.get("SETUPS", "0")) + 1)
        self.device = device

    def process(self, row: Row) -> Row:
        if row["image_id"] == "bad":
            raise ValueError("bad row")
        return {"process": os.getpid(), "setups": int(os.environ["SETUPS"]), "device": self.device}


KEEP = ("image_id", ROW_DIGEST, PART, PART_TODO, "process", "setups", "device")


def make_pool(kind: Kind = "finish", *, gpus: float = 0, actors: tuple[int, int] = (1, 2)) -> tuple[Pool, PoolPlan]:
    pool = Pool(kind=kind, stages=(Whereabouts(pool=kind),), keep=KEEP)
    resources = PoolPlan(
        name=pool.name,
        kind=kind,
        min_actors=actors[0],
        max_actors=actors[1],
        cpus=0.5,
        gpus=gpus,
        threads=3,
        memory=100 * 2**20,
    )
    return pool, resources


def make_rows(number: int) -> pa.Table:
    names = [f"image{index:03}" for index in range(number)]
    return of_part(names)


def of_part(names: list[str]) -> pa.Table:
    return pa.table({"image_id": names, ROW_DIGEST: names, PART: ["p"] * len(names), PART_TODO: [10] * len(names)})


class Recording:
    """Stands in for a Dataset and keeps what it is asked for."""

    def __init__(self) -> None:
        self.blocks: list[pa.Table] = []
        self.calls: list[tuple[Any, dict[str, Any]]] = []
        self.context: DataContext | None = None

    def from_blocks(self, blocks: list[pa.Table]) -> "Recording":
        self.blocks = blocks
        self.context = DataContext.get_current()
        return self

    def map_batches(self, function: Any, **options: Any) -> "Recording":
        self.calls.append((function, options))
        return self

    def iter_batches(self, **options: Any) -> Iterator[pa.Table]:
        assert (options["batch_size"], options["batch_format"]) == (None, "pyarrow")
        yield from self.blocks


@pytest.fixture
def recording(monkeypatch: pytest.MonkeyPatch) -> Recording:
    dataset = Recording()
    monkeypatch.setattr(ray.data, "from_blocks", dataset.from_blocks)
    monkeypatch.setattr(module, "the_watch", lambda: None)  # which would start Ray
    return dataset


def test_pools_without_gpus_are_tasks_as_planned(recording: Recording) -> None:
    list(execute(make_rows(20), [make_pool("fetch", actors=(1, 7)), make_pool()], rows_per_block=2))
    (_, fetching), (function, finishing) = recording.calls
    assert function.__name__ == "Whereabouts", "what the dashboard shows"
    assert isinstance(fetching["compute"], TaskPoolStrategy)
    assert [options["compute"].size for options in (fetching, finishing)] == [7, 2]
    for options in (fetching, finishing):
        assert (options["num_cpus"], options["memory"]) == (0.5, 100 * 2**20)
        assert (options["batch_format"], options["batch_size"]) == ("pyarrow", None)
        assert "num_gpus" not in options


def test_pools_with_gpus_are_actors_as_planned(recording: Recording, tmp_path: Path) -> None:
    writer = ShardWriter(folder=str(tmp_path), schema=pa.schema([]), run=1)
    pools = [make_pool("device", gpus=0.25, actors=(2, 5)), make_pool()]
    list(execute(make_rows(20), pools, rows_per_block=2, writer=writer))
    (actor, options), _ = recording.calls
    assert issubclass(actor, Worker)
    assert actor.__name__ == "Whereabouts"
    job = options["fn_constructor_kwargs"]["job"]
    assert (job.on_gpu, job.threads, job.writer) == (True, 3, None)
    compute = options["compute"]
    assert isinstance(compute, ActorPoolStrategy)
    assert (compute.min_size, compute.max_size) == (2, 5)
    assert compute.max_concurrent_calls_per_actor == CALLS_PER_ACTOR == 2
    assert compute.enable_true_multi_threading, "else the second call waits for the first one's end"
    assert (options["num_cpus"], options["num_gpus"], options["memory"]) == (0.5, 0.25, 100 * 2**20)
    assert (options["batch_format"], options["batch_size"]) == ("pyarrow", 2)


def test_nothing_is_started_that_no_block_would_reach(recording: Recording) -> None:
    pools = [make_pool("device", gpus=1, actors=(4, 8)), make_pool(actors=(1, 8))]
    list(execute(make_rows(5), pools, rows_per_block=2))
    actors, tasks = (options["compute"] for _, options in recording.calls)
    assert (actors.min_size, actors.max_size, tasks.size) == (3, 3, 3)


def test_no_more_processes_than_blocks(recording: Recording) -> None:
    pools = [make_pool("device", gpus=0.25, actors=(2, 5)), make_pool(actors=(1, 7))]
    list(execute(make_rows(3), pools, rows_per_block=3))
    actors, tasks = (options["compute"] for _, options in recording.calls)
    assert (actors.min_size, actors.max_size, tasks.size) == (1, 1, 1)


def test_memory_that_is_not_planned_is_not_reserved(recording: Recording) -> None:
    pool, resources = make_pool()
    list(execute(make_rows(1), [(pool, PoolPlan(**{**vars(resources), "memory": None}))], rows_per_block=2))
    assert "memory" not in recording.calls[0][1]


def test_rows_come_in_blocks_with_error_columns_in_their_order(recording: Recording) -> None:
    blocks = list(execute(make_rows(10), [make_pool()], rows_per_block=4))
    assert [block.num_rows for block in blocks] == [4, 4, 2]
    rows = pa.concat_tables(blocks)
    assert rows["image_id"].to_pylist() == make_rows(10)["image_id"].to_pylist()
    assert rows["error_stage"].null_count == rows["error_reason"].null_count == 10


@pytest.mark.parametrize("in_order", [True, False])
def test_what_passes_by_itself_is_tried_again_and_order_is_asked_for(recording: Recording, *, in_order: bool) -> None:
    before = DataContext.get_current()
    list(execute(make_rows(1), [make_pool()], rows_per_block=4, in_order=in_order))
    context = recording.context
    assert context is not None
    assert context.max_map_retries == MAX_RETRIES
    assert context.execution_options.preserve_order == in_order
    assert not context.enable_progress_bars
    assert DataContext.get_current() is before, "others' streams keep their own"


def test_rays_loop_is_calmed_once_a_stream(recording: Recording) -> None:
    for _ in range(2):
        list(execute(make_rows(1), [make_pool()], rows_per_block=4))
        assert recording.context is not None
        assert recording.context.execution_callback_classes.count(Calm) == 1


def test_jobs_of_two_streams_are_not_taken_for_one_another(recording: Recording) -> None:
    for _ in range(2):
        list(execute(make_rows(1), [make_pool("device", gpus=1)], rows_per_block=4))
    names = {options["fn_constructor_kwargs"]["job"].name for _, options in recording.calls}
    assert len(names) == 2


@pytest.mark.parametrize("gpus", [0.25, 2])
def test_ray_accepts_what_is_asked_of_it(local_ray: None, monkeypatch: pytest.MonkeyPatch, gpus: float) -> None:
    """On any machine: nothing is run."""
    asked: list[ray.data.Dataset] = []
    monkeypatch.setattr(ray.data.Dataset, "iter_batches", lambda dataset, **_: iter(asked.append(dataset) or ()))
    pools = [make_pool("fetch"), make_pool("device", gpus=gpus), make_pool()]
    assert list(execute(make_rows(4), pools, rows_per_block=2)) == []
    assert len(asked) == 1


def test_a_process_is_set_up_once_for_all_blocks_of_a_stream(local_ray: None) -> None:
    for _ in range(2):
        blocks = execute(make_rows(32), [make_pool()], rows_per_block=2, in_order=True)
        out = pa.concat_tables(blocks)
        assert out["image_id"].to_pylist() == make_rows(32)["image_id"].to_pylist()
        assert out["error_stage"].null_count == 32
        assert set(out["device"].to_pylist()) == {"cpu"}
        setups = set(zip(out["process"].to_pylist(), out["setups"].to_pylist(), strict=True))
        assert len(setups) == len({process for process, _ in setups})


def test_rows_cross_pools_and_are_written(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [("image_id", pa.string()), ("process", pa.int64()), ("setups", pa.int64()), ("device", pa.string())]
    schema = pa.schema([*fields, (ROW_DIGEST, pa.string())])
    rows = pa.concat_tables([make_rows(9), of_part(["bad"])])
    writer = ShardWriter(folder=str(tmp_path), schema=schema, run=1)
    counts = list(execute(rows, [make_pool("fetch"), make_pool()], rows_per_block=4, writer=writer))
    assert sum(count["num_finished"][0].as_py() for count in counts) == 9
    assert sum(count["num_quarantined"][0].as_py() for count in counts) == 1
    assert len(list(tmp_path.glob("attempts/p/*.parquet"))) == 3


@dataclass(kw_only=True)
class Weigh(Stage):
    """Bytes, many of some rows and none of others; the first time that it comes to row 13, the storage is away."""

    marks: str

    reads = ("image_id",)
    writes = pa.schema([pa.field("bytes", pa.binary())])

    def process(self, row: Row) -> Row:
        number = int(row["image_id"][5:])
        mark = Path(self.marks, "failed")
        if number == 13 and not mark.exists():
            mark.touch()
            raise ConnectionResetError("the storage is away")
        if number % 3 == 0:
            raise ValueError("no bytes")
        return {"bytes": b"x" * (100_000 if number % 3 == 1 else 1)}


def test_batches_of_indexed_rows_are_whole_and_in_order_also_after_a_failure(local_ray: None, tmp_path: Path) -> None:
    """What a block has yielded before the failure isn't yielded again, whatever its bytes."""
    table = make_rows(40)
    order = [(7 * number) % 40 for number in range(80)]
    pool = Pool(kind="finish", stages=(Weigh(marks=str(tmp_path)),), keep=("image_id", "bytes"))
    draws = pa.table({INDEX: pa.array(order, pa.int32())})
    batches = list(
        execute(
            draws,
            [(pool, make_pool()[1])],
            rows_per_block=40,
            rows_per_batch=4,
            indexed=ray.put(table),
            in_order=True,
        )
    )
    assert (tmp_path / "failed").exists()
    assert [batch.num_rows for batch in batches] == [4] * 20
    found = pa.concat_tables(batches)
    assert found["image_id"].to_pylist() == [f"image{number:03}" for number in order]
    assert found["error_stage"].to_pylist() == ["Weigh" if number % 3 == 0 else None for number in order]
