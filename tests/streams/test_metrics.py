"""Counters of a worker: what they count, that Ray exports them by the names that the dashboard asks for, their cost."""

import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.schema import ROW_DIGEST
from raypipe.stages.base import Row, Stage
from raypipe.streams import metrics
from raypipe.streams.job import GPU_DEVICE, Job, PackedPool
from raypipe.streams.metrics import GPU_WAIT_SECONDS, METRICS, QUARANTINED, ROWS, STAGE_SECONDS, Meter
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


@dataclass(kw_only=True)
class Ahead(Stage):
    """Runs in threads."""

    reads = ("image_id",)
    leaves = ("pixels",)
    ahead = True

    def process(self, row: Row) -> Row:
        time.sleep(0.01)
        return {"pixels": len(row)}


@dataclass(kw_only=True)
class Network(Stage):
    """Refuses one row."""

    reads = ("pixels", "image_id")
    writes = pa.schema([pa.field("value", pa.int64())])

    @property
    def kind(self) -> Any:
        return "device"

    def process(self, row: Row) -> Row:
        time.sleep(0.01)
        if row["image_id"] == "bad":
            raise ValueError("bad")
        return {"value": 1}


def make_worker(folder: Path, *, on_gpu: bool = False, writes: bool = True) -> Worker:
    keep = ("image_id", "value", ROW_DIGEST, PART, PART_TODO)
    pool = Pool(kind="device", stages=(Ahead(), Network()), keep=keep)
    schema = pa.schema({"image_id": pa.string(), "value": pa.int64(), ROW_DIGEST: pa.string()})
    writer = ShardWriter(folder=f"{folder}/masks/0123456789ab", schema=schema, run=1) if writes else None
    return Worker(Job(name="first", pool=PackedPool.of(pool), on_gpu=on_gpu, threads=2, writer=writer))


def rows(*names: str) -> pa.Table:
    number = len(names)
    parts = {PART: ["all"] * number, PART_TODO: [number] * number}
    return pa.table({"image_id": list(names), ROW_DIGEST: list(names), **parts})


Told = dict[tuple[str, str], float]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What is passed on, by counter and tag."""
    sums: Told = {}

    def add(name: str, value: float, tag: str) -> None:
        sums[name, tag] = sums.get((name, tag), 0.0) + value

    monkeypatch.setattr(metrics, "_add", add)
    return sums


def test_rows_and_seconds_of_each_stage_are_counted(told: Told, tmp_path: Path) -> None:
    worker = make_worker(tmp_path)
    worker(rows("a", "bad", "c"))
    worker(rows("d"))
    assert told[ROWS, "masks"] == 4
    assert told[QUARANTINED, "masks"] == 1
    assert 0.04 <= told[STAGE_SECONDS, "Ahead"] < 1
    assert 0.04 <= told[STAGE_SECONDS, "Network"] < 1
    assert told[GPU_WAIT_SECONDS, "Ahead + Network"] == 0


def test_rows_that_are_handed_on_are_not_counted(told: Told, tmp_path: Path) -> None:
    make_worker(tmp_path, writes=False)(rows("a"))
    assert {name for name, _ in told} == {STAGE_SECONDS, GPU_WAIT_SECONDS}


def test_a_gpu_waits_between_calls_and_for_rows_that_are_decoded(
    told: Told, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GPU_DEVICE, "cpu")
    worker = make_worker(tmp_path, on_gpu=True)
    worker(rows("a"))
    before = told[GPU_WAIT_SECONDS, "Ahead + Network"]
    assert before >= 0.01  # the first row is decoded
    time.sleep(0.2)
    worker(rows("b"))
    assert 0.2 <= told[GPU_WAIT_SECONDS, "Ahead + Network"] - before < 1


def test_without_ray_nobody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(_name: str) -> None:
        raise AssertionError("there is no Ray")

    monkeypatch.setattr(metrics, "_counter", refuse)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    make_worker(tmp_path)(rows("a"))


def test_measuring_costs_little() -> None:
    meter, stage, number = Meter("pool", on_gpu=True), Network(), 2000
    started = time.perf_counter()
    for _ in range(number):
        with meter.measure(stage):
            pass
    # A row takes 100 ms and more, and is measured a few times.
    assert (time.perf_counter() - started) / number < 50e-6


def _count(folder: str) -> None:
    make_worker(Path(folder))(rows("a", "bad"))
    metrics._add(GPU_WAIT_SECONDS, 1.5, "Ahead + Network")


def _exported() -> str:
    (node,) = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    with urllib.request.urlopen(url, timeout=10) as answer:
        text: str = answer.read().decode()
    return text


def _wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(60):
        if condition():
            return
        time.sleep(1)
    raise AssertionError("Ray exports nothing")


def test_ray_exports_them_by_the_names_of_the_dashboard(local_ray: None, tmp_path: Path) -> None:
    ray.get(ray.remote(_count).remote(str(tmp_path)))
    _wait_for(lambda: all(f"\nray_{name}_total{{" in _exported() for name in METRICS))
    lines = [line for line in _exported().splitlines() if line.startswith("ray_raypipe_")]
    assert any("ray_raypipe_rows_total" in line and 'stream="masks"' in line for line in lines)
    assert any("ray_raypipe_stage_seconds_total" in line and 'stage="Network"' in line for line in lines)
