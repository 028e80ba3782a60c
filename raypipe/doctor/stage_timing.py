"""Times the stages of a pool on a sample, in a process of their own: time, memory, and what a row weighs after them."""

import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.artifacts import Artifact
from raypipe.cluster.resources import PoolPlan
from raypipe.doctor.workload import UNKNOWN
from raypipe.stages.base import Row, Stage, run_stages
from raypipe.streams.job import Job, PackedPool
from raypipe.streams.plan import Pool
from raypipe.streams.worker import Worker

if TYPE_CHECKING:  # pools without networks do without torch, whose import would be most of what their processes do
    from raypipe.config import Training
    from raypipe.training.tasks import TrainingTask

AnyStage = TypeVar("AnyStage", bound=Stage)


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """What a stage took: means per image of the sample."""

    name: str
    seconds: float
    cpu_seconds: float
    """Of all threads together."""


@dataclass(frozen=True, kw_only=True)
class PoolTime:
    """What the stages of a pool took, and their process."""

    stages: tuple[StageTime, ...]
    start_seconds: float
    """CPU time until the process could begin: imports, networks, a first row. Once, not per image."""
    row_bytes: float
    """Of a row after the pool, in Ray's object store."""
    memory: int
    """Most bytes that the process had to itself; libraries that all workers share aren't counted."""
    gpu_memory: int
    """Most bytes on the GPU."""

    @property
    def seconds(self) -> float:
        """Seconds that an image takes in the pool."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def cpu_seconds(self) -> float:
        """The same of all threads together."""
        return sum(stage.cpu_seconds for stage in self.stages)


@dataclass(frozen=True)
class RandomNetwork:
    """Stands in for a network that isn't trained yet: random weights take the same time."""

    task: "TrainingTask"
    training: "Training"
    classes: tuple[str, ...]

    def write(self, folder: str) -> Artifact:
        """Leaves a checkpoint in a folder and returns it."""
        from raypipe.data.checkpoints import Checkpoint, write_checkpoint

        network = self.task.build()
        checkpoint = Checkpoint(
            task=self.task.name,
            backbone=self.task.backbone,
            classes=self.classes,
            preprocessing=network.preprocessing.to_dict(),
            config=self.training.model_dump(mode="json"),
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, folder)
        return Artifact(folder, UNKNOWN)


class _Clock:
    """Takes the time of a stage whenever it works on rows."""

    def __init__(self, stage: Stage) -> None:
        self.name = type(stage).__name__
        self.seconds = self.cpu_seconds = 0.0
        self._work = stage.process_all
        stage.process_all = self._timed  # type: ignore[method-assign]

    def _timed(self, rows: Sequence[Row]) -> list[Row]:
        started, cpu_started = time.perf_counter(), time.process_time()
        done = self._work(rows)
        self.seconds += time.perf_counter() - started
        self.cpu_seconds += time.process_time() - cpu_started
        return done


def time_pool(
    pool: Pool,
    resources: PoolPlan,
    table: pa.Table,
    *,
    networks: Mapping[str, RandomNetwork],
    rows_per_call: int,
) -> tuple[pa.Table, PoolTime]:
    """Runs the stages of a pool on a table, one after the other, after one row to warm up.

    Args:
        pool: the stages, which aren't set up.
        resources: the pool's, from which follow device and threads.
        table: rows; those in error pass by and don't count.
        networks: what stands in for the checkpoints of these URIs.
        rows_per_call: rows that go through the stages together.

    Returns:
        The rows after the pool with all columns, and what they took.
    """
    with tempfile.TemporaryDirectory() as folder:
        stages = tuple(_with_networks(stage, networks, folder) for stage in pool.stages)
        job = Job(
            name=pool.name,
            pool=PackedPool.of(replace(pool, stages=stages)),
            on_gpu=resources.gpus > 0,
            threads=resources.threads,
        )
        stages = Worker(job).process.pool.stages  # that are set up
    good = table.filter(pc.is_null(table["error_stage"]))
    run_stages(stages, good.slice(0, 1))
    start_seconds = time.process_time()
    clocks = [_Clock(stage) for stage in stages]
    starts = range(0, max(1, table.num_rows), rows_per_call)
    after = pa.concat_tables([run_stages(stages, table.slice(start, rows_per_call)) for start in starts])
    num_rows = max(1, good.num_rows)
    handed_on = after.select([name for name in after.column_names if name in pool.keep])
    return after, PoolTime(
        stages=tuple(
            StageTime(name=clock.name, seconds=clock.seconds / num_rows, cpu_seconds=clock.cpu_seconds / num_rows)
            for clock in clocks
        ),
        start_seconds=start_seconds,
        row_bytes=handed_on.nbytes / max(1, after.num_rows),
        memory=_own_peak(),
        gpu_memory=_gpu_peak(),
    )


def _with_networks(stage: AnyStage, networks: Mapping[str, RandomNetwork], folder: str) -> AnyStage:
    """A copy of a stage that, or whose inner stage, has random networks in the place of those not trained yet."""
    changes: dict[str, Any] = {}
    for field in fields(stage):  # type: ignore[arg-type] # all stages are dataclasses
        value = getattr(stage, field.name)
        if isinstance(value, Stage):
            changes[field.name] = _with_networks(value, networks, folder)
        elif isinstance(value, Artifact) and value.uri in networks:
            changes[field.name] = networks[value.uri].write(tempfile.mkdtemp(dir=folder))
    return replace(stage, **changes)  # type: ignore[type-var]


def _own_peak() -> int:
    """Peak of this process's memory without what it shares with others: mapped libraries and the object store."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    return 1024 * (kib["VmHWM"] - kib.get("RssFile", 0) - kib.get("RssShmem", 0))


def _gpu_peak() -> int:
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_reserved()) if torch is not None and torch.cuda.is_available() else 0
