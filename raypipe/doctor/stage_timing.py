"""Times one stage on a sample, in a process of its own: time, memory, and what a row weighs after it."""

import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from raypipe.stages.base import Stage

if TYPE_CHECKING:  # half of the stages do without torch, whose import would be most of what their processes do
    from raypipe.training.tasks import TrainingTask


@dataclass(frozen=True, kw_only=True)
class StageTime:
    """What a stage took; times are means per image of the sample."""

    seconds: float
    cpu_seconds: float
    """Of all threads together."""
    start_seconds: float
    """CPU time until the process could begin: imports, the network, a first row. Once, not per image."""
    row_bytes: float
    """Of a row after the stage, in Ray's object store."""
    memory: int
    """Most bytes that the process had to itself; libraries that all workers share aren't counted."""
    gpu_memory: int
    """Most bytes on the GPU."""


@dataclass(frozen=True)
class RandomNetwork:
    """Stands in for a network that isn't trained yet: random weights take the same time."""

    task: "TrainingTask"
    classes: tuple[str, ...]

    def write(self, folder: str) -> str:
        """Leaves a checkpoint in a folder; the folder."""
        from raypipe.data.checkpoints import Checkpoint, write_checkpoint

        network = self.task.build()
        checkpoint = Checkpoint(
            task=self.task.name,
            backbone=self.task.backbone,
            classes=self.classes,
            preprocessing=network.preprocessing.to_dict(),
            config={"section": {"saliency": getattr(self.task, "method", "none")}},
            weights=network.state_dict(),
        )
        write_checkpoint(checkpoint, folder)
        return folder


def time_stage(
    stage: type[Stage], args: Mapping[str, Any], table: pa.Table, *, batch_size: int, network: RandomNetwork | None
) -> tuple[pa.Table, StageTime]:
    """Runs a stage on a table, after one row to warm up.

    Args:
        stage: its class.
        args: its keyword arguments.
        table: rows; those in error pass by and don't count.
        batch_size: rows per call.
        network: takes the place of the argument `checkpoint`; None keeps it.

    Returns:
        The rows after the stage, and what it took.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = stage(**args) if network is None else stage(**{**args, "checkpoint": network.write(folder)})
    good = table.filter(pc.is_null(table["error_stage"]))
    run(good.slice(0, 1))
    start_seconds = time.process_time()
    started, cpu_started = time.perf_counter(), time.process_time()
    done = [run(table.slice(start, batch_size)) for start in range(0, table.num_rows, batch_size)]
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    after = pa.concat_tables(done)
    num_rows = max(1, good.num_rows)
    return after, StageTime(
        seconds=seconds / num_rows,
        cpu_seconds=cpu_seconds / num_rows,
        start_seconds=start_seconds,
        row_bytes=after.nbytes / max(1, after.num_rows),
        memory=_own_peak(),
        gpu_memory=_gpu_peak(),
    )


def _own_peak() -> int:
    """Peak of this process's memory without what it shares with others: mapped libraries and the object store."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kib = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines) if "kB" in rest}
    return 1024 * (kib["VmHWM"] - kib.get("RssFile", 0) - kib.get("RssShmem", 0))


def _gpu_peak() -> int:
    torch = sys.modules.get("torch")
    return int(torch.cuda.max_memory_reserved()) if torch is not None and torch.cuda.is_available() else 0
