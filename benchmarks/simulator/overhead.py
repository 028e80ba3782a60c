"""What Ray Data's driver takes for a block and an operator, measured on a local Ray with work that is none."""

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa
import ray

from raypipe.cluster.resources import PoolPlan
from raypipe.stages.base import Kind, Row, Stage
from raypipe.streams.execute import Parts, execute
from raypipe.streams.job import GPU_DEVICE
from raypipe.streams.plan import Pool

OPERATORS = 5
"""Of a stream: reading parts, giving each block to a task of its own, and three pools."""
RUNS = ((150, 8), (600, 8), (1500, 8), (150, 64), (600, 64))
"""Blocks, and rows of each."""


@dataclass
class PassOn(Stage):
    """Does nothing."""

    reads = ("image_id",)
    place: Kind = "fetch"

    @property
    def kind(self) -> Kind:
        """Any."""
        return self.place

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {}


@dataclass(frozen=True)
class Run:
    """One run of empty blocks."""

    blocks: int
    rows: int
    first: float
    """Seconds until the first block is through."""
    seconds: float
    cpu: float
    """Seconds of the driver's process, all threads together."""


@dataclass(frozen=True)
class Fit:
    """seconds = start + blocks · operators · (block + row · rows)."""

    start: float
    block: float
    row: float
    error: float
    """Largest difference to a run, as a share of it."""


def fit(runs: Sequence[Run], name: str) -> Fit:
    """Least squares over runs of one of their times."""
    times = np.array([getattr(run, name) for run in runs])
    terms = np.array([[1, OPERATORS * run.blocks, OPERATORS * run.blocks * run.rows] for run in runs])
    found, *_ = np.linalg.lstsq(terms / times[:, None], np.ones(len(runs)), rcond=None)
    error = np.abs(terms @ found / times - 1).max()
    return Fit(*(float(value) for value in (*found, error)))


def slopes(runs: Sequence[Run], name: str) -> list[tuple[int, int, float]]:
    """Seconds a block and operator between a run and the next longer one with blocks as large."""
    pairs = [(one, two) for one, two in pairwise(runs) if one.rows == two.rows]
    return [
        (two.blocks, two.rows, (getattr(two, name) - getattr(one, name)) / (two.blocks - one.blocks) / OPERATORS)
        for one, two in pairs
    ]


def start_ray(*, cpus: int, gpus: int, folders: Sequence[str] = ()) -> None:
    """A local Ray whose GPUs are only said to be there; its workers import from `folders`, too."""
    os.environ[GPU_DEVICE] = "cpu"
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    options = {"log_to_driver": False, "include_dashboard": False, "_memory": 64 * 2**30}
    ray.init(address="local", num_cpus=cpus, num_gpus=gpus, object_store_memory=500_000_000, **options)


def measure() -> list[Run]:
    """Runs of empty blocks, on a Ray that has run some before."""
    _run(20, 8)
    return [_run(blocks, rows) for blocks, rows in RUNS]


def _run(blocks: int, rows: int) -> Run:
    parts = 4

    def read(name: str) -> Iterator[pa.Table]:
        for block in range(int(name), blocks, parts):
            yield pa.table({"image_id": [f"{block:06d}-{row:06d}" for row in range(rows)]})

    pools = [
        (
            Pool(kind, (PassOn(kind),), ("image_id",)),
            PoolPlan(
                name=kind,
                kind=kind,
                min_actors=actors,
                max_actors=actors,
                cpus=0.5,
                gpus=float(kind == "device"),
                threads=1,
                memory=None,
            ),
        )
        for kind, actors in (("fetch", 1), ("device", 4), ("finish", 4))
    ]
    moments = [time.perf_counter()]
    cpu = time.process_time()
    source = Parts(tuple(str(number) for number in range(parts)), read)
    for number, _ in enumerate(execute(source, pools, rows_per_block=rows)):
        if number == 0:
            moments.append(time.perf_counter())
    moments.append(time.perf_counter())
    begun, first, ended = moments
    return Run(blocks, rows, first - begun, ended - begun, time.process_time() - cpu)
