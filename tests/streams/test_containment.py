"""Rows that no process survives, on a real Ray: exactly they are quarantined, whoever meets them."""

import ctypes
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pytest
import ray
import torch
from ray import cloudpickle

from raypipe.artifacts import NOT_IN_DIGEST
from raypipe.cluster.health import the_watch
from raypipe.cluster.resources import PoolPlan
from raypipe.cluster.watch import LACKED_MEMORY
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.data.shards import read_shards
from raypipe.schema import QUARANTINE
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams.job import GPU_DEVICE
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, run_stream

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([("image_id", pa.string()), ("number", pa.int64())])

ROOM, HOARD = 0.15, 0.3
"""Parts of the machine's memory: what Ray lets its processes take beside what is taken already; what a row wants."""


@dataclass(kw_only=True)
class Poisoned(Stage):
    """Computes a row, unless it is one of those that no process survives."""

    where: Kind = field(default="finish", metadata=NOT_IN_DIGEST)

    reads = ("image_id", "image_uri")
    writes = pa.schema([pa.field("number", pa.int64())])

    @property
    def kind(self) -> Kind:
        return self.where

    def process(self, row: Row) -> Row:
        match row["image_uri"]:
            case "memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            case "kills":
                ctypes.string_at(0)
            case "sleeps":
                threading.Event().wait()
            case "slow":
                time.sleep(0.1)
            case "hoards":
                kept = []
                while 2**26 * len(kept) < HOARD * psutil.virtual_memory().total:
                    kept.append(b"x" * 2**26)
                    time.sleep(0.02)
            case "broken":
                raise RuntimeError("a defect that only this image shows")
        return {"number": len(row["image_uri"])}


def run(out: Path, poison: dict[int, str], *, number: int, gpus: bool = False, row_timeout: float = 5) -> Any:
    names = [f"image{index:03}" for index in range(number)]
    uris = [poison.get(index, "good.jpg") for index in range(number)]
    plan = Plan(
        name="poisoned", stages=(Poisoned(where="device" if gpus else "finish"),), schema=SCHEMA, classes=("cat",)
    )
    (pool,) = plan.pools(gpus=gpus)
    resources = PoolPlan(
        name=pool.name, kind=pool.kind, min_actors=1, max_actors=2, cpus=1, gpus=0.5 * gpus, threads=1, memory=None
    )
    settings = Settings(out=str(out), budget=Budget(), rows_per_block=8, row_timeout=row_timeout)
    rows = Rows.of(pa.table({"image_id": names, "image_uri": uris}))
    return run_stream(plan, rows, settings, lambda: [(pool, resources)])


def test_the_death_of_the_watch_costs_nothing(local_ray: None, tmp_path: Path) -> None:
    ended = threading.Event()

    def kill() -> None:
        while not ended.wait(1):
            ray.kill(the_watch(), no_restart=False)

    killing = threading.Thread(target=kill)
    killing.start()
    _, summary = run(tmp_path, dict.fromkeys(range(64), "slow"), number=64)
    ended.set()
    killing.join()
    assert (summary.num_finished, summary.num_computed) == (64, 64)


POISON = {0: "kills", 13: "memory", 20: "sleeps", 30: "broken"}


def test_exactly_the_rows_are_quarantined_that_no_process_survives(local_ray: None, tmp_path: Path) -> None:
    check(tmp_path, gpus=False)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["actors", "little memory"])
def test_the_same_on_a_ray_of_its_own(tmp_path: Path, where: str) -> None:
    words = [sys.executable, __file__, str(tmp_path), where]
    environment = os.environ | {GPU_DEVICE: "cpu"}
    environment.pop("RAY_ADDRESS", None)
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr[-5000:]


def check(out: Path, *, gpus: bool) -> None:
    artifact, summary = run(out, POISON, number=48, gpus=gpus)
    rows = read_shards(artifact.uri + "/quarantine", schema=QUARANTINE).to_pylist()
    reasons = {int(row["image_id"][5:]): row["reason"] for row in rows}
    assert reasons == {
        0: "its process died while it worked on this row alone",
        13: "OutOfMemoryError: CUDA out of memory",
        20: "its process made no progress for 5 s in Poisoned while it worked on this row alone",
        30: "RuntimeError: a defect that only this image shows",
    }, reasons
    assert (summary.num_finished, summary.num_quarantined) == (44, 4)


def check_memory(out: Path) -> None:
    artifact, summary = run(out, {5: "hoards"}, number=24)
    (row,) = read_shards(artifact.uri + "/quarantine", schema=QUARANTINE).to_pylist()
    assert row["image_id"] == "image005"
    assert row["reason"] == f"{LACKED_MEMORY} while it worked on this row alone"
    assert (summary.num_finished, summary.num_quarantined) == (23, 1)


if __name__ == "__main__":
    memory = psutil.virtual_memory()
    if sys.argv[2] == "little memory":
        os.environ |= {"RAY_memory_usage_threshold": str(1 - memory.available / memory.total + ROOM)}
    # The server of the dashboard says why a process has ended.
    with socket.create_server(("127.0.0.1", 0)) as server:
        options = {"include_dashboard": sys.argv[2] == "little memory", "dashboard_port": server.getsockname()[1]}
    ray.init(address="local", num_cpus=4, num_gpus=1, object_store_memory=200 * 2**20, **options)
    if sys.argv[2] == "little memory":
        check_memory(Path(sys.argv[1]))
    else:
        check(Path(sys.argv[1]), gpus=True)
