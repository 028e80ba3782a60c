"""What benchmarks share: repeated timings, networks, the machine, a table."""

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import scipy
import torch

from raypipe import storage
from raypipe.data.checkpoints import Checkpoint, Task, write_checkpoint
from raypipe.data.rows import ONLY_PART
from raypipe.networks import Network, build_affinity_net, build_classifier
from raypipe.outputs.ledger import INDEX, SHARDS, write_entries
from raypipe.outputs.sink import write_shard
from raypipe.schema import ROW_DIGEST

ROOT = Path(__file__).parent.parent


def default_device() -> torch.device:
    """The CUDA device if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


class Timing(NamedTuple):
    """Seconds of one call."""

    median: float
    lowest: float
    highest: float
    num_runs: int

    def __str__(self) -> str:
        unit, factor = ("ms", 1e3) if self.median < 1 else ("s", 1.0)
        return (
            f"{self.median * factor:.3g} {unit} "
            f"({self.lowest * factor:.3g} to {self.highest * factor:.3g}, n = {self.num_runs})"
        )


def time_interleaved(calls: Sequence[Callable[[], object]], *, num_runs: int) -> list[Timing]:
    """Times several calls in turns, so that a slow minute of the machine falls on all of them; one warm-up each."""
    for call in calls:
        call()
    seconds: list[list[float]] = [[] for _ in calls]
    for _ in range(num_runs):
        for call, times in zip(calls, seconds, strict=True):
            started = time.perf_counter()
            call()
            times.append(time.perf_counter() - started)
    return [Timing(statistics.median(times), min(times), max(times), num_runs) for times in seconds]


def write_random_networks(
    folder: str, backbone: str, classes: Sequence[str], *, tasks: Sequence[Task] = ("classifier", "affinity")
) -> dict[Task, Network]:
    """Networks of the tasks with random weights, as checkpoints `<folder>/<task>` too."""
    torch.manual_seed(0)
    networks: dict[Task, Network] = {}
    for task in tasks:
        built = (
            build_affinity_net(backbone) if task == "affinity" else build_classifier(backbone, num_classes=len(classes))
        )
        networks[task] = built.eval()
        checkpoint = Checkpoint(
            task=task,
            backbone=backbone,
            classes=tuple(classes),
            preprocessing=built.preprocessing.to_dict(),
            config={"section": {"saliency": "none"}},
            weights=built.state_dict(),
        )
        write_checkpoint(checkpoint, storage.join(folder, task))
    return networks


def write_made_up(folder: str, kind: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Writes made-up rows as one shard of a stream, with its index, or as a file of its quarantine."""
    if ROW_DIGEST not in schema.names:
        schema = schema.append(pa.field(ROW_DIGEST, pa.string()))
    made = pa.Table.from_pylist([row | {ROW_DIGEST: "made up"} for row in rows], schema=schema)
    if kind == SHARDS:
        kind, made = INDEX, write_shard(folder, SHARDS, ONLY_PART, made)
    write_entries(folder, kind, ONLY_PART, made, run=1)


def machine() -> str:
    """Hardware, versions and commit, as a line for a result page."""
    cpu = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    flags = [
        name
        for name, seen in (
            ("AMX", torch.cpu._is_amx_tile_supported()),
            ("AVX512-bf16", torch.cpu._is_avx512_bf16_supported()),
        )
        if seen
    ]
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return (
        f"{cpu} ({', '.join(flags) or 'neither AMX nor AVX512-bf16'}), {torch.get_num_threads()} threads, {gpu}; "
        f"torch {torch.__version__}, numpy {np.__version__}, scipy {scipy.__version__}; commit {commit()}"
    )


def commit() -> str:
    """The commit of this repository, and whether it was changed; "unknown" without git or a clone."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)
