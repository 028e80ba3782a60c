"""Processes that die over their set-up, such as the import of a broken driver: the run ends, and says so."""

import ctypes
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pytest
import ray
from ray import cloudpickle

from raypipe.cluster.health import AllSick
from raypipe.cluster.resources import PoolPlan
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams.job import GPU_DEVICE
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, run_stream

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([("image_id", pa.string()), ("number", pa.int64())])


@dataclass(kw_only=True)
class Fatal(Stage):
    """Kills the process that sets it up."""

    where: Kind = "finish"

    reads: ClassVar[tuple[str, ...]] = ("image_id",)
    writes = pa.schema([pa.field("number", pa.int64())])

    @property
    def kind(self) -> Kind:
        return self.where

    def setup(self, device: str) -> None:  # noqa: ARG002 - an interface
        ctypes.string_at(0)

    def process(self, row: Row) -> Row:  # noqa: ARG002 - an interface
        raise AssertionError("no process gets here")


class FatalToUnpack(Fatal):
    """Kills the process that gets it, as a library does that was built for another processor."""

    def __reduce__(self) -> tuple[Any, ...]:
        return ctypes.string_at, (0,)


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["Fatal", "FatalToUnpack"])
@pytest.mark.parametrize("pool", ["tasks", "actors"])
def test_a_run_whose_processes_die_over_their_setup_ends_and_says_so(tmp_path: Path, pool: str, stage: str) -> None:
    environment = os.environ | {GPU_DEVICE: "cpu"}
    environment.pop("RAY_ADDRESS", None)
    words = [sys.executable, __file__, str(tmp_path), pool, stage]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def main(out: str, pool_kind: str, stage: str) -> None:
    gpus = pool_kind == "actors"
    ray.init(address="local", num_cpus=4, num_gpus=1, object_store_memory=100 * 2**20, include_dashboard=False)
    fatal = {each.__name__: each for each in (Fatal, FatalToUnpack)}[stage](where="device" if gpus else "finish")
    plan = Plan(name="fatal", stages=(fatal,), schema=SCHEMA, classes=("cat",))
    (pool,) = plan.pools(gpus=gpus)
    resources = PoolPlan(
        name=pool.name, kind=pool.kind, min_actors=1, max_actors=2, cpus=1, gpus=0.5 * gpus, threads=1, memory=None
    )
    rows = Rows.of(pa.table({"image_id": [f"image{index:03}" for index in range(48)]}))
    settings = Settings(out=out, budget=Budget(), rows_per_block=8)
    started = time.monotonic()
    with pytest.raises(AllSick, match=f"its process died while it was set up for {stage}, 3 times in a row") as raised:
        run_stream(plan, rows, settings, lambda: [(pool, resources)])
    print(f"{time.monotonic() - started:.0f} s: {raised.value}")
    assert time.monotonic() - started < 90


if __name__ == "__main__":
    main(*sys.argv[1:])
