"""Seconds and memory of `raypipe import table --long`: a table of one tag a row becomes a manifest.

    python benchmarks/long_tables.py --rows 10000000

The table is made up: a third as many images as rows, 200 classes of unlike frequency, a fifth of the tags of confidence
0. Of the images only the thousand that are looked for have a file. The memory is what this process, the workers and
Ray's services have to themselves, at its peak, less what an idle local Ray has.
"""

import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import typer
from measure import commit, machine, table
from memory import Memory
from PIL import Image
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.cluster.connect import connect
from raypipe.config import Cluster
from raypipe.data.names import hash_names
from raypipe.data.parts import open_manifest
from raypipe.imports.images import SAMPLE

STEP = 500_000
CLASSES = 200
IDLE_SECONDS = 8


def write_table(path: Path, *, rows: int) -> set[int]:
    """Writes the table, in no order of its images; returns their numbers."""
    rng = np.random.default_rng(0)
    found: set[int] = set()
    with path.open("w") as file:
        file.write("ImageID,Source,LabelName,Confidence\n")
        for start in range(0, rows, STEP):
            number = min(STEP, rows - start)
            images = rng.integers(0, rows // 3, number)
            labels = (rng.random(number) ** 2 * CLASSES).astype(int)
            sure = (rng.random(number) > 0.2).astype(int)
            lines = zip(images, labels, sure, strict=True)
            file.write("".join(f"img{image:08d},human,class {label:03d},{one}\n" for image, label, one in lines))
            found.update(images.tolist())
    return found


def write_sample(folder: Path, numbers: set[int]) -> None:
    """Writes the files of the images that the import looks for."""
    uris = pa.array([f"{folder}/img{number:08d}.jpg" for number in sorted(numbers)], pa.string())
    smallest = np.argsort(hash_names(uris, "existence"), kind="stable")[:SAMPLE]
    for index in smallest.tolist():
        Image.new("RGB", (16, 16)).save(uris[index].as_py())


def peak(memory: Memory) -> float:
    """MiB of all processes."""
    return sum(memory.peaks.get(kind, 0) for kind in ("driver and workers", "Ray's services")) / 2**20


def main(rows: int = 10_000_000) -> None:
    """Imports the table once."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        numbers = write_table(folder / "tags.csv", rows=rows)
        write_sample(folder, numbers)
        number_of_images = len(numbers)
        del numbers
        connect(Cluster())
        with Memory() as idle:
            time.sleep(IDLE_SECONDS)
        words = ["import", "table", str(folder / "tags.csv"), str(folder / "manifest"), "--long"]
        words += ["--image-suffix", ".jpg", "--check", "sample"]
        with Memory() as memory:
            started = time.perf_counter()
            done = CliRunner().invoke(
                app, [*words, "--image-suffix", ".jpg", "--check", "sample"], catch_exceptions=False
            )
            seconds = time.perf_counter() - started
        print(done.output)
        found = len(open_manifest(str(folder / "manifest")))
    assert found == number_of_images
    row = (
        f"{rows:,}",
        f"{found:,}",
        f"{seconds:.0f} s",
        f"{peak(idle):.0f} MiB",
        f"{peak(memory) - peak(idle):.0f} MiB",
    )
    print(machine(), commit(), sep="; ")
    print(table(("rows", "images", "time", "idle Ray", "peak above it"), [row]))


if __name__ == "__main__":
    typer.run(main)
