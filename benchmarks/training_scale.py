"""A training on a part of a large set: the draw, the first step, memory. Ray is started here, alone on the machine.

    python benchmarks/training_scale.py draw                      # 5 M rows in parts of 50,000
    python benchmarks/training_scale.py train --num-rows 5000 --num-rows 5000000 --workers 1 --workers 2

`train` runs the classifier's real training and ends it after some steps. Rows are made up part by part; their images
are a few small ones, over and over, and the network is tiny: what the number of rows costs shows.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import pyarrow as pa
import ray
import typer
from measure import machine, table
from memory import Memory, added
from PIL import Image

from raypipe.cluster.connect import connect
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.rows import Part, Rows
from raypipe.pipelines import networks
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import Context
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.networks import NetworkPlan, crop_options
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.synthetic.generate import CLASSES, draw_scene
from raypipe.training import trainer
from raypipe.training.order import Position

app = typer.Typer(no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False)

NUM_FILES = 64
ROWS_PER_PART = 50_000
STEPS = 60
"""After which a training is ended."""


def rows_of(num_rows: int, folder: str) -> Rows:
    """Rows of a manifest, made up where they are read; each class is shown by half as many images as the one before."""
    starts = range(0, num_rows, ROWS_PER_PART)
    sizes = [min(ROWS_PER_PART, num_rows - start) for start in starts]
    parts = [
        Part(f"part-{start}", size, partial(make_part, start, size, folder))
        for start, size in zip(starts, sizes, strict=True)
    ]
    return Rows(tuple(parts), schema=parts[0].read().schema)


def make_part(start: int, size: int, folder: str) -> pa.Table:
    """The rows of one part."""
    uris = pa.array([f"{folder}/{index}.jpg" for index in range(NUM_FILES)])
    numbers = np.arange(start, start + size)
    shown = np.random.default_rng(start).geometric(0.5, size).clip(max=len(CLASSES)) - 1
    labels = pa.array(CLASSES).take(pa.array(shown))
    columns = {
        "image_id": pa.array([f"train/{number:08d}" for number in numbers]),
        "image_uri": uris.take(pa.array(numbers % NUM_FILES)),
        "labels": pa.ListArray.from_arrays(pa.array(np.arange(size + 1), pa.int32()), labels),
    }
    return pa.table(columns)


@app.command()
def draw(num_rows: int = 5_000_000, number: int = 200_000) -> None:
    """Seconds and memory of drawing `number` images, here one part after the other; a cluster reads parts in tasks."""
    print(machine(), end="\n\n")
    rows = rows_of(num_rows, "s3://bucket/images")

    def whole() -> None:
        assert draw_to_learn(rows, classes=CLASSES, number=number, seed=0).num_rows == min(number, num_rows)

    started = time.perf_counter()
    grown = added(whole)
    header = ("rows", "drawn", "the whole draw, rows made up twice included", "memory added")
    cells = (f"{num_rows:,}", f"{number:,}", f"{time.perf_counter() - started:.0f} s", f"{grown:.0f} MiB")
    print(table(header, [cells]))


@app.command()
def train(
    num_rows: Annotated[list[int] | None, typer.Option("--num-rows", help="repeat for several")] = None,
    workers: Annotated[list[int] | None, typer.Option("--workers", help="repeat for several")] = None,
    crop_size: int = 128,
    max_images: Annotated[int, typer.Option(help="0 takes all")] = 200_000,
) -> None:
    """Seconds to the first step, steps a second after it, and what a worker has to itself; each in a fresh Ray."""
    print(machine(), end="\n\n")
    lines = []
    for number in workers or [1, 2]:
        for rows in num_rows or [5_000, 5_000_000]:
            words = ["train-of", str(rows), str(number), str(crop_size), str(max_images)]
            command = [sys.executable, __file__, *words]
            found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603 - ourselves
            lines.append((number, f"{rows:,}", *json.loads(found.splitlines()[-1])))
    header = ("workers", "rows", "draw", "from the draw to the first step", "of it in the worker")
    header = (*header, "steps a second", "worker's own memory grows by", "and with what it shares", "driver's peak")
    print(table(header, lines))


@app.command(hidden=True)
def train_of(num_rows: int, workers: int, crop_size: int, max_images: int) -> None:
    """One training: the cells of its line as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        for index in range(NUM_FILES):
            Image.fromarray(draw_scene(0, index, sizes=(128, 160)).pixels).save(f"{folder}/{index}.jpg", quality=90)
        given = [f"manifest={folder}/none", f"out={folder}/out", f"classifier.crop_size={crop_size}"]
        given += ["classifier.batch_size=16", f"cluster.train_workers={workers}"]
        config = load_config("preset: demo", [*given, "cluster.object_store_memory=500000000"])
        context = Context(config, Manifest.from_rows([], CLASSES))
        started = time.perf_counter()
        rows = draw_to_learn(rows_of(num_rows, folder), classes=CLASSES, number=max_images or None, seed=0)
        drawn = time.perf_counter()
        training, task = config.training("classifier"), classifier_task(context)
        options: dict[str, Any] = crop_options(context, training, task)
        crops = LoadClassifierCrops(classes=CLASSES, long_side=config.classifier.long_side, **options)
        plan = NetworkPlan(task=task, training=training, crops=crops, rows=rows, classes=CLASSES)
        connect(config.cluster)
        begun = time.time()
        with Memory() as watched:
            _run(context, plan, folder)
        ray.shutdown()
        found = [json.loads(file.read_text()) for file in Path(folder).glob("worker*.json")]
    assert len(found) == workers
    slowest = max(found, key=lambda each: each["first_step"])
    rate = (STEPS - 1) / (slowest["last_step"] - slowest["first_step"])
    cells = [f"{drawn - started:.1f} s", f"{slowest['first_step'] - begun:.1f} s"]
    cells += [f"{slowest['first_step'] - slowest['asked']:.1f} s", f"{rate:.1f}"]
    cells += [f"{max(each[name] for each in found) / 2**20:.0f} MiB" for name in ("uss", "rss")]
    print(json.dumps([*cells, f"{watched.peaks['driver'] / 2**20:.0f} MiB"]))


def _run(context: Context, plan: NetworkPlan, folder: str) -> None:
    """Runs a training whose workers end after `STEPS` steps and leave what they saw in files."""
    make_feed, run = networks.make_feed, trainer.train

    def make_watched(*args: Any, **options: Any) -> Callable[..., Iterator[pa.Table]]:
        feed = make_feed(*args, **options)

        def watched(begin: Position, rank: int, world_size: int) -> Iterator[pa.Table]:
            process = psutil.Process()
            before, seen = process.memory_full_info(), {"asked": time.time(), "uss": 0, "rss": 0}
            for step, batch in enumerate(feed(begin, rank, world_size)):
                now = process.memory_full_info()
                for name in ("uss", "rss"):
                    seen[name] = max(seen[name], getattr(now, name) - getattr(before, name))
                if step == 1:  # so the first one is done
                    seen["first_step"] = time.time()
                if step == STEPS:
                    seen["last_step"] = time.time()
                    Path(folder, f"worker{rank}.json").write_text(json.dumps(seen))
                    raise EnoughSeen
                yield batch

        return watched

    def run_once(*args: Any, **options: Any) -> Any:
        return run(*args, **options, max_failures=0)

    networks.make_feed, trainer.train = make_watched, run_once
    try:
        networks.run_training(context, plan)
    except Exception as error:
        if "EnoughSeen" not in repr(error):
            raise
    finally:
        networks.make_feed, trainer.train = make_feed, run


class EnoughSeen(Exception):  # noqa: N818 - nothing is wrong
    """A worker has taken its steps."""


if __name__ == "__main__":
    app()
