"""What streaming costs and how evenly it flows; Ray is started here, nothing else should run beside it.

    python benchmarks/streaming.py overhead   # Ray Data against a bare loop of the same stages on the same cores
    python benchmarks/streaming.py memory     # driver and workers at 2,000 and at 20,000 rows
    python benchmarks/streaming.py source     # a million rows until the first is through, and the driver's memory
    python benchmarks/streaming.py busy       # share of its time that a GPU stage works, at 1, 2 and 4 actors

Images are synthetic animals (JPEG), networks small and random: little work a row, so what streaming adds shows.
"""

import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import psutil
import pyarrow as pa
import ray
import torch
import typer
from measure import machine, table, write_random_networks
from memory import Memory
from PIL import Image

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.cluster.connect import connect
from raypipe.cluster.resources import PoolPlan
from raypipe.config import RunConfig, load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.rows import Rows
from raypipe.data.shards import read_shards
from raypipe.outputs.ledger import SHARDS
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.masks import masks_plan
from raypipe.schema import ROW_DIGEST
from raypipe.stages.base import Kind, Row, Stage, run_stages
from raypipe.stages.decode import DecodeImages
from raypipe.stages.fetch import FetchImages
from raypipe.streams.collect import collect
from raypipe.streams.execute import execute
from raypipe.streams.plan import Plan, Pool
from raypipe.streams.run import rows_per_block
from raypipe.synthetic.generate import CLASSES, draw_scene

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

NUM_FILES = 64
"""Different images; rows share them."""


@contextmanager
def make_context(num_rows: int, *overrides: str, long_side: int = 256) -> Iterator[Context]:
    """A manifest of `num_rows` rows, random networks and a config in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        for index in range(NUM_FILES):
            scene = draw_scene(0, index, sizes=(long_side, long_side))
            Image.fromarray(scene.pixels).save(f"{folder}/{index}.jpg", quality=90)
            rows.append({"image_uri": f"{folder}/{index}.jpg", "labels": list(scene.labels), "split": "train"})
        named = [{"image_id": f"{index:06d}", **rows[index % NUM_FILES]} for index in range(num_rows)]
        write_manifest(Manifest.from_rows(named, CLASSES), f"{folder}/manifest.parquet")
        tasks = write_random_networks(folder, "tiny", CLASSES)
        given = [f"manifest={folder}/manifest.parquet", f"out={folder}/out"]
        given += [f"checkpoints.{task}={folder}/{task}" for task in tasks]
        yield open_context(load_config("preset: demo", [*given, "splits.masks=null", *overrides]))


def mask_plan(context: Context) -> Plan:
    """The masks' plan with a context's networks."""
    checkpoints = context.config.checkpoints
    assert checkpoints.classifier is not None
    assert checkpoints.affinity is not None
    maps, affinity = (Artifact(uri, "random") for uri in (checkpoints.classifier, checkpoints.affinity))
    return masks_plan(context, maps=maps, affinity=affinity)


def stream_masks(context: Context, num_rows: int, *, name: str) -> float:
    """Seconds of a stream over the first `num_rows` rows, into a folder of its own."""
    started = time.perf_counter()
    out = storage.join(context.config.out, name)
    context.run(mask_plan(context), Rows.of(collect(context.rows(None)).slice(0, num_rows)), out=out)
    return time.perf_counter() - started


def _loop(config: RunConfig, part: int, num_parts: int, num_rows: Sequence[int], seconds: Any, ready: Any) -> None:
    """A bare loop over every `num_parts`-th row, in a process of its own; shards are written as the stream does."""
    torch.set_num_threads(1)
    context = open_context(config)
    plan = mask_plan(context)
    for stage in plan.stages:
        stage.setup("cpu")
    everything = collect(context.rows(None))
    schema = plan.schema.append(pa.field(ROW_DIGEST, pa.string()))
    for index, number in enumerate(num_rows):
        size = config.cluster.rows_per_block or rows_per_block(number)
        rows = everything.slice(0, number).take(list(range(part, number, num_parts)))
        for name, value in ((ROW_DIGEST, ""), (PART, f"process{part}"), (PART_TODO, rows.num_rows)):
            rows = rows.append_column(name, pa.array([value] * rows.num_rows))
        writer = ShardWriter(folder=storage.join(config.out, f"loop{index}"), schema=schema, run=1)
        ready.wait()
        started = time.perf_counter()
        for start in range(0, rows.num_rows, size):
            writer.write(run_stages(plan.stages, rows.slice(start, size)))
        ready.wait()  # the slowest process ends the run
        if part == 0:
            seconds.put(time.perf_counter() - started)


def loop_masks(context: Context, num_rows: Sequence[int]) -> list[float]:
    """Seconds of bare loops over so many rows, one process a core."""
    spawn = multiprocessing.get_context("spawn")
    number = os.cpu_count() or 1
    seconds, ready = spawn.Queue(), spawn.Barrier(number)
    processes = [
        spawn.Process(target=_loop, args=(context.config, part, number, num_rows, seconds, ready))
        for part in range(number)
    ]
    for process in processes:
        process.start()
    found = [seconds.get() for _ in num_rows]
    for process in processes:
        process.join()
    return found


@app.command()
def overhead(
    num_rows: Annotated[int, typer.Option(min=64, help="rows in steady state")] = 512,
    num_runs: Annotated[int, typer.Option(min=1, help="times that both take turns")] = 5,
    method: Annotated[str, typer.Option(help="refinement: none or dcrf")] = "dcrf",
) -> None:
    """Steady state is the difference between a run of 128 + `num_rows` rows and one of 128 rows."""
    print(machine(), end="\n\n")
    short, long = 128, 128 + num_rows
    with make_context(long, f"refinement.method={method}", "cluster.object_store_memory=300000000") as context:
        loops, streams, shorts = [], [], []
        for run in range(num_runs):
            few, many = loop_masks(context, [short, long])
            loops.append(many - few)
            connect(context.config.cluster)
            few, many = (stream_masks(context, number, name=f"{run}-{number}") for number in (short, long))
            ray.shutdown()
            streams.append(many - few)
            shorts.append(few)
    ratios = [stream / loop for stream, loop in zip(streams, loops, strict=True)]
    lines = [
        (name, _spread([1000 * s / num_rows for s in seconds], "ms"))
        for name, seconds in (("bare loop, a process a core", loops), ("Ray Data", streams))
    ]
    print(f"{num_rows} rows, {num_runs} runs, refinement: {method}\n")
    print(table(("masks", "time a row, steady state"), lines), end="\n\n")
    print(f"Ray Data / bare loop: {_spread(ratios)}; the first {short} rows, starting included: {_spread(shorts, 's')}")


def _spread(values: Sequence[float], unit: str = "") -> str:
    return f"{statistics.median(values):.3g} {unit} ({min(values):.3g} to {max(values):.3g}, n = {len(values)})"


@app.command()
def memory(
    num_rows: Annotated[list[int] | None, typer.Option("--num-rows", help="repeat for several")] = None,
) -> None:
    """Peaks of runs of different length, each in a fresh Ray; a network of 0.3 M parameters, 96 pixels, no dCRF."""
    print(machine(), end="\n\n")
    lines, peaks = [], []
    for number in num_rows or [2_000, 20_000]:
        command = [sys.executable, __file__, "memory-of", str(number)]
        found = subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603 - ourselves
        cells = found.splitlines()[-1].split(",")
        peaks.append(float(cells[2]))
        lines.append((f"{number:,}", *cells, f"{peaks[-1] / peaks[0]:.2f}"))
    header = ("rows", "seconds", "rows a second", "driver and workers, MiB", "driver", "workers", "Ray's services")
    print(table((*header, "relative"), lines))


@app.command(hidden=True)
def memory_of(num_rows: int) -> None:
    """One run: seconds, rows a second and peaks in MiB as a line of CSV."""
    small = ["cams.scales=[1.0]", "images.max_side=96", "refinement.method=none"]
    with make_context(num_rows, *small, "cluster.object_store_memory=300000000") as context:
        connect(context.config.cluster)
        with Memory() as watched:
            seconds = stream_masks(context, num_rows, name="memory")
        ray.shutdown()
    kinds = ("driver and workers", "driver", "workers", "Ray's services")
    print(f"{seconds:.0f},{num_rows / seconds:.0f}," + ",".join(f"{watched.peaks[k] / 2**20:.0f}" for k in kinds))


@dataclass
class PassOn(Stage):
    """Does nothing."""

    reads = ("image_id",)

    def process(self, row: Row) -> Row:  # noqa: ARG002
        """One row."""
        return {}


@app.command()
def source(
    num_rows: Annotated[int, typer.Option(min=1, help="rows of a manifest that is made up")] = 1_000_000,
) -> None:
    """From a table to the first batch behind a stage that does nothing, in blocks of a long stream."""
    print(machine(), end="\n\n")
    names = [f"train/{index:08d}" for index in range(num_rows)]
    columns = {
        "image_id": names,
        "image_uri": [f"s3://bucket/dataset/images/{name}.jpg" for name in names],
        "labels": [list(CLASSES[: 1 + index % 2]) for index in range(num_rows)],
        "split": ["train"] * num_rows,
        "mask_uri": pa.nulls(num_rows, pa.string()),
    }
    rows = pa.table(columns)
    options = {"log_to_driver": False, "include_dashboard": False}
    ray.init(address="local", num_cpus=4, object_store_memory=1_000_000_000, **options)
    memory = [psutil.Process().memory_full_info().uss]
    moments = [time.perf_counter()]
    size = rows_per_block(num_rows)
    pool = Pool("finish", (PassOn(),), ("image_id",))
    resources = PoolPlan(
        name=pool.name, kind="finish", min_actors=1, max_actors=2, cpus=1, gpus=0, threads=1, memory=None
    )
    next(iter(execute(rows, [(pool, resources)], rows_per_block=size)))
    moments.append(time.perf_counter())
    memory.append(psutil.Process().memory_full_info().uss)
    cells = (f"{num_rows:,}", f"{-(-num_rows // size):,}", f"{moments[1] - moments[0]:.1f} s")
    header = ("rows", "blocks", "until the first batch", "driver grows by")
    print(table(header, [(*cells, f"{(memory[1] - memory[0]) / 2**20:.0f} MiB")]))


@dataclass
class FakeGpuStage(Stage):
    """Stands for a network on a GPU: takes 20 ms a row and no CPU; notes when it worked and where."""

    reads = ("image",)
    writes = pa.schema([pa.field("actor", pa.int64()), pa.field("start", pa.float64()), pa.field("end", pa.float64())])

    @property
    def kind(self) -> Kind:
        """Holds a device."""
        return "device"

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Sleeps for the rows."""
        start = time.time()
        time.sleep(0.02 * len(rows))
        return [row | {"actor": os.getpid(), "start": start, "end": time.time()} for row in rows]

    def process(self, row: Row) -> Row:
        """One row."""
        return self.process_all([row])[0]


@app.command()
def busy(
    seconds: Annotated[int, typer.Option(help="of work for each actor")] = 40,
    num_actors: Annotated[list[int] | None, typer.Option("--num-actors", help="repeat for several")] = None,
) -> None:
    """FetchImages, then the decoder and the fake stage on logical GPUs, then shards."""
    print(machine(), end="\n\n")
    ray.shutdown()
    ray.init(num_cpus=16, num_gpus=4, object_store_memory=300_000_000, log_to_driver=False, include_dashboard=False)
    schema = pa.schema([pa.field("image_id", pa.string(), nullable=False), *FakeGpuStage.writes])
    lines = []
    for number in num_actors or [1, 2, 4]:
        num_rows = number * seconds * 50
        with make_context(num_rows, f"cluster.network_actors={number}", "cluster.gpus_per_actor=1") as context:
            stages = (FetchImages(classes=None), DecodeImages(max_side=1024), FakeGpuStage())
            plan = Plan(name="busy", stages=stages, schema=schema, classes=CLASSES)
            artifact, _ = context.run(plan, context.rows(None))
            calls = read_shards(storage.join(artifact.uri, SHARDS), schema=schema).to_pandas()
        calls = calls.drop_duplicates(["actor", "start"])
        window = calls["end"].max() - calls["start"].min()
        worked = calls.assign(worked=calls["end"] - calls["start"]).groupby("actor")["worked"].sum()
        shares = worked / window
        cells = (f"{window:.1f} s", f"{100 * shares.mean():.1f} %", f"{100 * shares.min():.1f} %")
        lines.append((number, f"{num_rows:,}", *cells))
    print(table(("actors", "rows", "from first to last call", "busy", "the idlest actor"), lines))


if __name__ == "__main__":
    app()
