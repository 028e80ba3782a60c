"""What streaming costs and how evenly it flows; Ray is started here, nothing else should run beside it.

    python benchmarks/streaming.py overhead   # Ray Data against a bare loop of the same stages on the same cores
    python benchmarks/streaming.py memory     # driver and workers at 2,000 and at 20,000 rows
    python benchmarks/streaming.py bytes      # what a row weighs between stages
    python benchmarks/streaming.py source     # a million rows until the first is through, and the driver's memory
    python benchmarks/streaming.py busy       # share of its time that a GPU stage works, at 1, 2 and 4 actors

Images are synthetic animals (JPEG), networks small and random: little work a row, so what streaming adds shows.
"""

import io
import itertools
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from raypipe.config import Budget, RunConfig, load_config
from raypipe.data.manifest import Manifest, write_manifest
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context, open_context, start_ray
from raypipe.pipelines.masks import masks_steps, masks_stream
from raypipe.pipelines.seeds import decode_step, seeds_steps
from raypipe.schema import MASKS
from raypipe.stages.base import Row, Stage, with_error_columns
from raypipe.streams import plan as graph
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, rows_per_block, run_stream
from raypipe.streams.sink import SHARDS, ShardSink
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


def mask_steps(context: Context) -> list[Step]:
    """The masks' stages with a context's networks."""
    checkpoints = context.config.checkpoints
    assert checkpoints.classifier is not None
    return masks_steps(context, classifier=checkpoints.classifier, affinity=checkpoints.affinity, reuse_cams=False)


def stream_masks(context: Context, num_rows: int, *, name: str) -> float:
    """Seconds of a stream over the first `num_rows` rows, into a folder of its own."""
    stream = masks_stream(context, classifier_digest=name, affinity_digest=None)
    started = time.perf_counter()
    run_stream(stream, Part(context.rows(None).slice(0, num_rows), mask_steps(context)))
    return time.perf_counter() - started


def _loop(config: RunConfig, part: int, num_parts: int, num_rows: Sequence[int], seconds: Any, ready: Any) -> None:
    """A bare loop over every `num_parts`-th row, in a process of its own; shards are written as the stream does."""
    torch.set_num_threads(1)
    context = open_context(config)
    steps = mask_steps(context)
    stages = [step.stage(**step.args) for step in steps]
    size = config.cluster.rows_per_shard
    for index, number in enumerate(num_rows):
        rows = context.rows(None).slice(0, number).take(list(range(part, number, num_parts)))
        rows = with_error_columns(rows)
        sink = ShardSink(storage.join(config.out, f"loop{index}"), MASKS, rows_per_shard=size)
        ready.wait()
        started = time.perf_counter()
        for start in range(0, rows.num_rows, size):
            batch = rows.slice(start, size)
            for stage in stages:
                batch = stage(batch)
            sink.write([batch], None)
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
            start_ray(context.config.cluster)
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
        start_ray(context.config.cluster)
        with Memory() as watched:
            seconds = stream_masks(context, num_rows, name="memory")
        ray.shutdown()
    kinds = ("driver and workers", "driver", "workers", "Ray's services")
    print(f"{seconds:.0f},{num_rows / seconds:.0f}," + ",".join(f"{watched.peaks[k] / 2**20:.0f}" for k in kinds))


@app.command(name="bytes")
def bytes_a_row(long_side: Annotated[int, typer.Option(help="of the images, pixels")] = 500) -> None:
    """Mean bytes of a row after each stage, with the columns that weigh most."""
    print(machine(), end="\n\n")
    with make_context(NUM_FILES, long_side=long_side) as context:
        classifier = context.config.checkpoints.classifier
        assert classifier is not None
        streams = {"seeds": seeds_steps(context, classifier=classifier), "masks": mask_steps(context)}
        for name, steps in streams.items():
            batch = context.rows(None)
            batch = with_error_columns(batch)
            lines = []
            for step in steps:
                batch = step.stage(**step.args)(batch)
                sizes = {column: batch[column].nbytes / batch.num_rows for column in batch.column_names}
                heavy = sorted(sizes.items(), key=lambda item: -item[1])[:3]
                names = ", ".join(f"{column} {size:,.0f}" for column, size in heavy)
                lines.append((step.stage.__name__, f"{sum(sizes.values()):,.0f}", names))
            pixels = statistics.mean(3 * h * w for h, w in _sizes(context))
            print(f"{name}, {long_side} pixels; decoded, an image would be {pixels:,.0f} bytes\n")
            print(table(("after", "bytes a row", "most of it"), lines), end="\n\n")


def _sizes(context: Context) -> list[tuple[int, int]]:
    files = set(context.rows(None)["image_uri"].to_pylist())
    return [Image.open(io.BytesIO(storage.read_bytes(uri))).size for uri in files]


class PassOn(Stage):
    """Does nothing."""

    reads = ("image_id",)
    writes = pa.schema([])

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
    size = rows_per_block(num_rows, rows_per_shard=RunConfig(manifest="", out="").cluster.rows_per_shard)
    dataset = graph.source(rows, rows_per_block=size)
    moments.append(time.perf_counter())
    dataset = graph.apply(dataset, [Step(stage=PassOn)])
    next(iter(dataset.iter_batches(batch_size=None, batch_format="pyarrow")))
    moments.append(time.perf_counter())
    memory.append(psutil.Process().memory_full_info().uss)
    made, first = (later - moment for moment, later in itertools.pairwise(moments))
    cells = (f"{num_rows:,}", f"{-(-num_rows // size):,}", f"{made:.1f} s", f"{first:.1f} s")
    header = ("rows", "blocks", "source", "then the first batch", "driver grows by")
    print(table(header, [(*cells, f"{(memory[1] - memory[0]) / 2**20:.0f} MiB")]))


class FakeGpuStage(Stage):
    """Stands for a network on a GPU: takes 20 ms a row and no CPU; notes when it worked and where."""

    reads = ("image",)
    writes = pa.schema([pa.field("actor", pa.int64()), pa.field("start", pa.float64()), pa.field("end", pa.float64())])
    drops = ("image",)

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Sleeps for the batch."""
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
    """DecodeImages, then the fake stage on logical GPUs, then shards."""
    print(machine(), end="\n\n")
    ray.shutdown()
    ray.init(num_cpus=16, num_gpus=4, object_store_memory=300_000_000, log_to_driver=False, include_dashboard=False)
    schema = pa.schema([pa.field("image_id", pa.string(), nullable=False), *FakeGpuStage.writes])
    lines = []
    for number in num_actors or [1, 2, 4]:
        num_rows = number * seconds * 50
        with make_context(num_rows) as context:
            stream = Stream(
                record=Record(stage="busy", config={}, inputs={}),
                out=context.config.out,
                schema=schema,
                classes=CLASSES,
                budget=Budget(),
                rows_per_shard=context.config.cluster.rows_per_shard,
            )
            step = Step(stage=FakeGpuStage, num_actors=number, num_gpus=1, num_cpus=0, batch_size=16)
            run_stream(stream, Part(context.rows(None), [decode_step(context), step]))
            calls = read_shards(storage.join(stream.folder, SHARDS), schema=schema).to_pandas()
        calls = calls.drop_duplicates(["actor", "start"])
        window = calls["end"].max() - calls["start"].min()
        worked = calls.assign(worked=calls["end"] - calls["start"]).groupby("actor")["worked"].sum()
        shares = worked / window
        cells = (f"{window:.1f} s", f"{100 * shares.mean():.1f} %", f"{100 * shares.min():.1f} %")
        lines.append((number, f"{num_rows:,}", *cells))
    print(table(("actors", "rows", "from first to last call", "busy", "the idlest actor"), lines))


if __name__ == "__main__":
    app()
