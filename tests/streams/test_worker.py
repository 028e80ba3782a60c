import gc
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, get_ident
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import torch

from raypipe.data.blocks import unpack
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.schema import ROW_DIGEST
from raypipe.stages.base import Row, Stage
from raypipe.streams import worker
from raypipe.streams.job import GPU_DEVICE, INDEX, Job, PackedPool
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker, work, work_in_batches


class Loaded:
    """Stands for a network: something that takes memory."""


@dataclass(kw_only=True)
class Decode(Stage):
    """Notes the threads that it runs in."""

    threads: ClassVar[set[int]] = set()

    reads = ("number",)
    leaves = ("pixels",)
    ahead = True

    def process(self, row: Row) -> Row:
        self.threads.add(get_ident())
        return {"pixels": row["number"]}


@dataclass(kw_only=True)
class Double(Stage):
    """Notes each time that it is set up; refuses to be run twice at a time."""

    devices: ClassVar[list[str]] = []
    networks: ClassVar["weakref.WeakSet[Loaded]"] = weakref.WeakSet()
    busy: ClassVar[Lock] = Lock()

    factor: int = 2

    reads = ("pixels",)
    writes = pa.schema([pa.field("double", pa.int64())])

    def setup(self, device: str) -> None:
        self.network = Loaded()
        self.networks.add(self.network)
        self.devices.append(device)

    def process(self, row: Row) -> Row:
        assert self.busy.acquire(blocking=False), "two calls at a time"
        doubled = self.factor * row["pixels"]
        self.busy.release()
        return {"double": doubled}


@pytest.fixture(autouse=True)
def new_process(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """As if no job had run in this process; what torch's number of threads is set to."""
    monkeypatch.setattr(worker, "_worker", None)
    set_to: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", set_to.append)
    Double.devices.clear()
    Decode.threads.clear()
    return set_to


KEPT = ("image_id", ROW_DIGEST, PART, PART_TODO, "double")


def make_job(name: str = "first", *, pool: Pool | None = None, **options: Any) -> Job:
    pool = pool or Pool(kind="device", stages=(Decode(), Double()), keep=KEPT)
    return Job(**{"name": name, "pool": PackedPool.of(pool), "on_gpu": False, "threads": 3, **options})


def make_rows(*numbers: int) -> pa.Table:
    names = [str(number) for number in numbers]
    number = len(names)
    columns = {ROW_DIGEST: names, PART: ["p"] * number, PART_TODO: [2] * number, "image": [b""] * number}
    return pa.table({"image_id": names, "number": list(numbers), **columns})


def test_a_worker_runs_its_pool_and_keeps_what_is_needed(new_process: list[int]) -> None:
    out = Worker(make_job())(make_rows(1, 2))
    kept = ["image_id", ROW_DIGEST, PART, PART_TODO, "double"]
    assert out.column_names == [*kept, "error_stage", "error_reason"]
    assert out["double"].to_pylist() == [2, 4]
    assert set(new_process) == {1}, "whatever the job's number, or masks would depend on it"
    assert get_ident() not in Decode.threads


@pytest.mark.parametrize(
    ("on_gpu", "named", "device"), [(True, None, "cuda"), (True, "cpu", "cpu"), (False, "cuda:1", "cpu")]
)
def test_only_who_has_a_gpu_uses_one(
    monkeypatch: pytest.MonkeyPatch, *, on_gpu: bool, named: str | None, device: str
) -> None:
    monkeypatch.delenv(GPU_DEVICE, raising=False)
    if named is not None:
        monkeypatch.setenv(GPU_DEVICE, named)
    Worker(make_job(on_gpu=on_gpu))
    assert Double.devices == [device]


def test_a_worker_that_writes_returns_the_numbers_of_rows(tmp_path: Path) -> None:
    schema = pa.schema([("image_id", pa.string()), ("double", pa.int64()), (ROW_DIGEST, pa.string())])
    job = make_job(writer=ShardWriter(folder=str(tmp_path), schema=schema, run=1))
    (written,) = Worker(job)(make_rows(1, 2)).to_pylist()
    assert (written[PART], written[PART_TODO]) == ("p", 2)
    assert (written["num_finished"], written["num_quarantined"]) == (2, 0)
    assert len(list(tmp_path.glob("attempts/p/*.parquet"))) == 1


def test_calls_that_overlap_share_networks_and_threads() -> None:
    running = Worker(make_job())
    tables = [make_rows(*range(start, start + 40)) for start in range(0, 400, 40)]
    with ThreadPoolExecutor(2) as calls:
        outs = list(calls.map(running, tables))
    assert [number for out in outs for number in out["double"].to_pylist()] == [2 * number for number in range(400)]
    assert Double.devices == ["cpu"]
    assert len(Decode.threads) <= 3


def test_a_call_that_fails_holds_up_no_other() -> None:
    running = Worker(make_job())
    broken = make_rows(1).set_column(1, "number", [["no number"]])
    for _ in range(2):
        with pytest.raises(Exception, match="no number"):
            running(broken)
    with ThreadPoolExecutor(2) as calls:
        assert [out.num_rows for out in calls.map(running, [make_rows(1)] * 4)] == [1] * 4


def test_a_process_keeps_a_job_for_the_next_rows_and_frees_it_for_another() -> None:
    """A task brings its job anew each time."""

    def run(job: Job) -> list[int]:
        doubled: list[int] = work(make_rows(1, 2), pickle.loads(pickle.dumps(job)))["double"].to_pylist()  # noqa: S301
        gc.collect()
        return doubled

    first, other = (
        make_job(),
        make_job("other", pool=Pool(kind="device", stages=(Decode(), Double(factor=5)), keep=("double",))),
    )
    assert [run(first) for _ in range(3)] == [[2, 4]] * 3
    assert len(Double.devices) == len(Double.networks) == 1
    assert run(other) == [5, 10]
    assert len(Double.devices) == 2
    assert len(Double.networks) == 1, "the first job's network is gone"
    assert run(first) == [2, 4]
    assert len(Double.devices) == 3


def test_rows_that_are_named_by_their_numbers_are_taken_from_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is encoded in the table comes as its values."""
    monkeypatch.setattr("ray.get", lambda value: value)
    names = pa.array(["a", "b", "a"]).dictionary_encode()
    whole = pa.table({"image_id": names, ROW_DIGEST: ["x", "y", "z"], "number": [1, 2, 3]})
    draws = pa.table({INDEX: pa.array([2, 0, 2], pa.int32()), "epoch": [7, 7, 8]})
    pool = Pool(kind="finish", stages=(Decode(), Double()), keep=("image_id", ROW_DIGEST, "double", "epoch"))
    done = work(draws, make_job(pool=pool, indexed=whole))
    assert done["double"].to_pylist() == [6, 2, 6]
    assert done["image_id"].to_pylist() == ["a", "a", "a"]
    assert done["epoch"].to_pylist() == [7, 7, 8]
    assert INDEX not in done.column_names


@pytest.mark.parametrize(
    ("rows_per_batch", "at_a_time"), [(4, [16, 4]), (5, [20]), (10, [20]), (20, [20]), (1, [16, 4])]
)
def test_batches_are_whole_and_come_as_they_are_done(
    rows_per_batch: int, at_a_time: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block of 20 rows; small batches are worked on together."""
    table = pa.table(
        {
            "image_id": [f"{n}" for n in range(20)],
            ROW_DIGEST: [""] * 20,
            "number": range(20),
            "error_stage": [None] * 20,
        }
    )
    sizes: list[int] = []
    monkeypatch.setattr(worker, "work", lambda part, job: sizes.append(part.num_rows) or work(part, job))
    batches = work_in_batches(table, make_job(rows_per_batch=rows_per_batch))
    first = unpack(next(batches))
    assert sizes == at_a_time[:1], "the first batch doesn't wait for the others"
    found = [first, *map(unpack, batches)]
    assert sizes == at_a_time
    assert [batch.num_rows for batch in found] == [rows_per_batch] * (20 // rows_per_batch)
    assert pa.concat_tables(found)["double"].to_pylist() == [2 * number for number in range(20)]
