"""Is the memory of an export flat?

    python benchmarks/export_memory.py stream --num-rows 2000 --num-rows 100000
    python benchmarks/export_memory.py join

`stream` exports synthetic masks on Ray and watches driver and workers, each export in a process of its own; `join` only
the driver's last step, without Ray.
"""

import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from exports import make_context
from measure import machine, table, write_made_up
from memory import Memory, peak, reset_peak, run_alone

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.cluster.connect import connect
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.formats.base import Options
from raypipe.outputs.ledger import SHARDS
from raypipe.pipelines.context import Context
from raypipe.pipelines.exports.datasets import ExportMasks, make_format, read_exported, run_export
from raypipe.schema import EXPORTS, MASKS

CLASSES = ("cat", "dog")
SIZE = {"height": 16, "width": 16}

app = typer.Typer(no_args_is_help=True)


def write_masks(folder: str, num_rows: int) -> Manifest:
    """Tiny masks of 16 x 16, and their manifest."""
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 3, (4, 4), np.uint8).repeat(4, 0).repeat(4, 1)) for _ in range(256)]
    ids = [f"{number:07d}" for number in range(num_rows)]
    for start in range(0, num_rows, 500):
        rows = [
            {"image_id": image_id, **dict.fromkeys(("mask", "confidence"), pngs[int(image_id) % 256]), **SIZE}
            for image_id in ids[start : start + 500]
        ]
        write_made_up(folder, SHARDS, rows, MASKS)
    rows = [
        {"image_id": name, "image_uri": f"s3://bucket/images/{name}.jpg", "labels": [], "split": "val"} for name in ids
    ]
    return Manifest.from_rows(rows, CLASSES)


def _stream_peaks(name: str, num_rows: int) -> tuple[dict[str, int], float, float]:
    with tempfile.TemporaryDirectory() as folder:
        masks = Artifact(f"{folder}/masks", "made up")
        manifest = write_masks(masks.uri, num_rows)
        context = make_context(manifest, "cluster.rows_per_block=500", "cluster.object_store_memory=300000000")
        connect(context.config.cluster)
        # Loads what is loaded once.
        first = Context(context.config, Manifest(manifest.table.slice(0, 500), manifest.classes))
        run_export(first, name, f"{folder}/first", masks=masks, options=Options())
        started = time.monotonic()
        with Memory() as watched:
            run_export(context, name, f"{folder}/out", masks=masks, options=Options())
        seconds = time.monotonic() - started
        written = sum(path.stat().st_size for path in Path(folder, "out").rglob("*") if path.is_file())
        return watched.peaks, seconds, written / 2**20


@app.command()
def stream(
    num_rows: Annotated[list[int], typer.Option(help="rows of a manifest; repeat for several")] = [2000, 100000],  # noqa: B006 - typer's way
    formats: Annotated[list[str], typer.Option("--format")] = ["coco"],  # noqa: B006
) -> None:
    """Prints the table of benchmarks/exports.md on memory: what driver and workers have to themselves, at its peak."""
    print(machine(), end="\n\n")
    rows = []
    for name in formats:
        for number in num_rows:
            peaks, seconds, written = run_alone(_stream_peaks, name, number)
            kinds = [f"{peaks[kind] / 2**20:.0f}" for kind in ("driver", "workers", "Ray's services")]
            rows.append((name, f"{number:,}", *kinds, f"{written:.1f}", f"{seconds:.0f}"))
            print(rows[-1], flush=True)
    header = ("export", "rows", "driver, MiB", "workers, MiB", "Ray's services, MiB", "written, MiB", "seconds")
    print("\n" + table(header, rows))


def _join_peak(name: str, work: str) -> tuple[float, float, float, float]:
    format_ = make_format(name, CLASSES, Options())
    shards = storage.list_files(f"{work}/shards", suffix=".parquet")
    format_.finish(lambda: read_exported(shards[:1]), f"{work}/first")  # loads what is loaded once
    before = reset_peak()
    started = time.monotonic()
    format_.finish(lambda: read_exported(shards), f"{work}/out")
    written = sum(path.stat().st_size for path in Path(work, "out").rglob("*") if path.is_file())
    return before, peak(), time.monotonic() - started, written / 2**20


@app.command()
def join(
    num_rows: Annotated[list[int], typer.Option(help="rows; repeat for several")] = [2000, 20000, 100000],  # noqa: B006
    formats: Annotated[list[str], typer.Option("--format")] = ["coco", "voc", "huggingface"],  # noqa: B006
) -> None:
    """Prints the table of benchmarks/exports.md on joining: what the driver does alone, after the workers."""
    print(machine(), end="\n\n")
    rows = []
    rng = np.random.default_rng(0)
    png = encode_png(rng.integers(0, 3, (4, 4), np.uint8).repeat(4, 0).repeat(4, 1))
    for name in formats:
        for total in num_rows:
            with tempfile.TemporaryDirectory() as work:
                stage = ExportMasks(
                    name=name, classes=CLASSES, options=Options(), out=f"{work}/unused", min_confidence=0
                )
                stage.setup("cpu")
                # The same image again and again: only its number and its id differ, and drawing it takes no time.
                items = stage.process(_row(0, png))["items"]
                for start in range(0, total, 500):
                    shard = [_row(number, png) | {"items": items} for number in range(start, min(start + 500, total))]
                    write_made_up(work, SHARDS, shard, EXPORTS)
                before, highest, seconds, written = run_alone(_join_peak, name, work)
            row = (name, f"{total:,}", f"{before:.0f}", f"{highest:.0f}", f"{highest - before:.0f}", f"{written:.1f}")
            rows.append((*row, f"{seconds:.1f}"))
            print(rows[-1])
    header = ("export", "rows", "before, MiB", "peak, MiB", "added, MiB", "written, MiB", "seconds")
    print("\n" + table(header, rows))


def _row(number: int, png: bytes) -> dict[str, object]:
    name = f"{number:07d}"
    return {
        "image_id": name,
        "number": number + 1,
        "split": "val",
        "image_uri": f"s3://bucket/images/{name}.jpg",
        "mask": png,
        "confidence": png,
        **SIZE,
    }


if __name__ == "__main__":
    app()
