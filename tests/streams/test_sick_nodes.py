"""A node that can do nothing, in a real cluster of three raylets: it is left out, named, and blames no row."""

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
from ray.cluster_utils import Cluster

from raypipe.cluster.health import sick_nodes
from raypipe.cluster.resources import PoolPlan
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams import local_files
from raypipe.streams.job import GPU_DEVICE
from raypipe.streams.plan import Plan
from raypipe.streams.run import Settings, run_stream

# Workers can't import test modules: what is defined here travels by value.
cloudpickle.register_pickle_by_value(sys.modules[__name__])

SCHEMA = pa.schema([("image_id", pa.string()), ("number", pa.int64())])
NUM_ROWS = 240

DEADLY = ("device", "setup")
"""What ends processes."""


class ClientError(Exception):
    """As botocore raises it."""

    response: ClassVar[dict[str, Any]] = {"Error": {"Code": "ExpiredToken"}}


@dataclass(kw_only=True)
class Sickly(Stage):
    """Fails on a node that is sick, in the way that the node says."""

    where: Kind = "finish"

    reads = ("image_id", "image_uri")
    writes = pa.schema([pa.field("number", pa.int64())])

    @property
    def kind(self) -> Kind:
        return self.where

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpacked, (self.where,)

    def setup(self, device: str) -> None:  # noqa: ARG002 - an interface
        match os.environ.get("SICK_NODE"):
            case "setup":
                ctypes.string_at(0)
            case "checkpoint":
                time.sleep(10)  # until others are set up
                raise ValueError("the checkpoint is missing")
            case "mount":
                local_files.readable = lambda _: []  # type: ignore[attr-defined]

    def process(self, row: Row) -> Row:
        time.sleep(0.2)
        match os.environ.get("SICK_NODE"):
            case "keys":
                raise PermissionError("The provided token has expired") from ClientError()
            case "device":
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            case "mount":
                raise FileNotFoundError(row["image_uri"])
        return {"number": len(row["image_id"])}


def _unpacked(where: Kind) -> Sickly:
    if os.environ.get("SICK_NODE") == "library":
        time.sleep(10)  # until others are set up
        raise ImportError("libcudart.so.12: cannot open shared object file")
    return Sickly(where=where)


@pytest.mark.slow
@pytest.mark.parametrize("sickness", ["keys", "device", "setup", "checkpoint", "library", "mount"])
def test_a_sick_node_is_left_out_and_blames_no_row(tmp_path: Path, sickness: str) -> None:
    environment = os.environ | {GPU_DEVICE: "cpu"}
    environment.pop("RAY_ADDRESS", None)
    words = [sys.executable, __file__, str(tmp_path), sickness]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    if sickness not in DEADLY:  # processes that die may be started elsewhere before the node is known
        assert "goes on without sick nodes" in done.stderr


def main(out: str, sickness: str) -> None:
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    node = {"num_cpus": 2, "num_gpus": 2, "object_store_memory": 100 * 2**20}
    cluster.add_node(**node)
    sick = cluster.add_node(**node, env_vars={"SICK_NODE": sickness})
    ray.init(address=cluster.address)
    gpus = sickness == "device"
    plan = Plan(name="sickly", stages=(Sickly(where="device" if gpus else "finish"),), schema=SCHEMA, classes=("cat",))
    (pool,) = plan.pools(gpus=gpus)
    resources = PoolPlan(
        name=pool.name, kind=pool.kind, min_actors=1, max_actors=4, cpus=1, gpus=gpus, threads=1, memory=None
    )
    names = [f"image{index:03}" for index in range(NUM_ROWS)]
    rows = Rows.of(pa.table({"image_id": names, "image_uri": [__file__] * NUM_ROWS}))
    settings = Settings(out=out, budget=Budget(), rows_per_block=4)
    _, summary = run_stream(plan, rows, settings, lambda: [(pool, resources)])
    assert (summary.num_finished, summary.num_quarantined) == (NUM_ROWS, 0), summary
    assert set(sick_nodes()) in ({sick.node_id}, set() if sickness in DEADLY else {sick.node_id}), sick_nodes()
    ray.shutdown()  # before its nodes, whose end would be this process's
    cluster.shutdown()


if __name__ == "__main__":
    main(*sys.argv[1:])
