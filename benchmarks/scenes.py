"""What the mask of a large scene takes: memory of driver and workers above idle Ray, and time.

    python benchmarks/scenes.py

The scene has four 16-bit bands of textures, and two labels; the networks are tiny, with random weights.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from measure import machine, table, write_random_networks
from memory import Memory, run_alone
from numpy.typing import NDArray
from PIL import Image

from raypipe.cluster.connect import connect
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.run import open_run
from raypipe.schema import MASKS

CLASSES = ("cat", "dog")
SEGMENT = 256
NUM_BANDS = 4

LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {"tile": (SEGMENT, SEGMENT), "compression": "zlib", "predictor": True},
    "strips": {"rowsperstrip": 1, "compression": "zlib"},
}


def write_scene(path: str, side: int, layout: str) -> None:
    """A scene as a file."""
    from tifffile import imwrite

    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (64, 64, NUM_BANDS), np.uint8)
    cells = np.asarray(Image.fromarray(small).resize((2048, 2048), Image.Resampling.BICUBIC))
    base = cells.astype(np.uint16) * 12 + rng.integers(0, 40, cells.shape, np.uint16) + 500

    def segments() -> Iterator[NDArray[np.uint16]]:
        number = -(-side // SEGMENT)
        for y, x in product(range(number), range(number)):
            top, left = y * SEGMENT % 2048, x * SEGMENT % 2048
            yield np.ascontiguousarray(base[top : top + SEGMENT, left : left + SEGMENT])

    shape = (side, side, NUM_BANDS)
    options = {"photometric": "minisblack", "planarconfig": "contig", "metadata": None, "bigtiff": True}
    if layout == "strips":  # which tifffile doesn't write one by one
        number = -(-side // 2048)
        imwrite(path, np.tile(base, (number, number, 1))[:side, :side], **options, **LAYOUTS[layout])
    else:
        imwrite(path, segments(), shape=shape, dtype=np.uint16, **options, **LAYOUTS[layout])


def measure(folder: str, scene: str, side: int, tile: int, method: str) -> tuple[dict[str, int], dict[str, int], float]:
    """Peaks of idle Ray and of the run, in bytes, and seconds."""
    write_random_networks(folder, "tiny", CLASSES)
    rows = [{"image_id": "scene", "image_uri": scene, "labels": list(CLASSES), "split": "train"}]
    write_manifest(Manifest.from_rows(rows, CLASSES), f"{folder}/manifest.parquet")
    options = [
        *(f"manifest={folder}/manifest.parquet", f"out={folder}/out"),
        *(f"checkpoints.{task}={folder}/{task}" for task in ("classifier", "affinity")),
        *(f"images.tile={tile}", "images.bands=[3,2,1]", "refinement.gate=off", f"refinement.method={method}"),
        "splits={train: null, masks: null}",
        "cluster.object_store_memory=300000000",
    ]
    run = open_run(load_config("preset: demo", options))
    connect(run.config.cluster)
    with Memory() as idle:
        time.sleep(3)
    started = time.monotonic()
    with Memory() as busy:
        folder = run.make_masks().uri
    seconds = time.monotonic() - started
    (row,) = read_shards(f"{folder}/shards", schema=MASKS).to_pylist()
    mask = decode_mask(row["mask"], size=(side, side))
    assert mask.shape == (side, side)
    assert len(np.unique(mask)) > 1
    return idle.peaks, busy.peaks, seconds


def main(
    side: Annotated[int, typer.Option(help="pixels")] = 12_000,
    tile: Annotated[int, typer.Option(help="images.tile")] = 1024,
    methods: Annotated[list[str], typer.Option("--method", help="refinement.method")] = ["none"],  # noqa: B006
    layouts: Annotated[list[str], typer.Option("--layout", help="tiles or strips")] = ["tiles", "strips"],  # noqa: B006
) -> None:
    """Prints the table of benchmarks/scenes.md."""
    print(machine(), end="\n\n")
    lines = []
    for layout, method in product(layouts, methods):
        with tempfile.TemporaryDirectory() as folder:
            scene = f"{folder}/scene.tif"
            run_alone(write_scene, scene, side, layout)
            size = Path(scene).stat().st_size / 2**20
            idle, busy, seconds = run_alone(measure, folder, scene, side, tile, method)
        above = busy["driver and workers"] - idle["driver and workers"]
        figures = (f"{value / 2**20:,.0f}" for value in (idle["driver and workers"], busy["driver and workers"], above))
        lines.append((f"{side:,}²", layout, f"{size:,.0f}", method, *figures, f"{seconds:.0f}"))
        print(lines[-1], flush=True)
    header = ("scene", "layout", "file, MiB", "refinement", "idle, MiB", "peak, MiB", "above idle, MiB", "seconds")
    print(table(header, lines))


if __name__ == "__main__":
    typer.run(main)
