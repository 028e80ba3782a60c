"""Masks from a store that answers late: two checkouts of raypipe against one another, in turns; nothing beside it.

    git worktree add ../old ed14985
    PYTHONPATH=. python benchmarks/latency.py ../old .

Moto stands behind a proxy that lets every request wait. Images are small, class activation maps lie in the store as
seeds do, the network sleeps 20 ms a row on a GPU that is only said to be there, on a Ray with 8 logical CPUs: what is
measured is how well storage is hidden behind it. What runs is in `latency_trees/`.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import fsspec
import numpy as np
import typer
from measure import ROOT, machine, table
from stores import counted_s3

from raypipe import storage
from raypipe.data.images import encode_png

FILES = 64
SIDE = 64


def main(
    trees: Annotated[list[Path], typer.Argument(help="checkouts, the old one first")],
    rows: Annotated[int, typer.Option(min=64, help="of each run")] = 640,
    runs: Annotated[int, typer.Option(min=1, help="times that all take turns")] = 3,
    gpus: Annotated[int, typer.Option(min=1, help="logical ones")] = 1,
    latency: Annotated[float, typer.Option(help="seconds that each request waits")] = 0.1,
) -> None:
    """Rows a second while the network has rows, and of the whole stream, its actors' start included."""
    print(f"{machine()}\n\n{rows} rows, {gpus} logical GPUs, {1000 * latency:g} ms more a request\n", flush=True)
    found: list[list[dict[str, float]]] = [[] for _ in trees]
    with counted_s3() as proxy:
        uris = write_images()
        for number, tree in enumerate(trees):
            run(tree, "seeds", f"s3://bucket/{number}", rows, gpus, uris)
        proxy.stop()
        proxy.start(latency=latency)
        for turn in range(runs):
            for number, tree in enumerate(trees):
                before = proxy.now()
                seen = run(tree, "masks", f"s3://bucket/{number}", rows, gpus, uris)
                seen["requests"] = proxy.now()["passed on"] - before.get("passed on", 0)
                found[number].append(seen)
                print(f"turn {turn + 1}, {commit(tree)}: {seen}", file=sys.stderr, flush=True)
                fsspec.filesystem("s3").rm(f"s3://bucket/{number}/masks", recursive=True)
    lines = []
    for name, of_run in (
        ("while the network has rows", "window"),
        ("whole stream, its actors' start included", "seconds"),
    ):
        rates = [[each["rows"] / each[of_run] for each in of_tree] for of_tree in found]
        first = statistics.median(rates[0])
        for tree, of_tree, each in zip(trees, found, rates, strict=True):
            turns = [mine / old for mine, old in zip(each, rates[0], strict=True)]
            cells = (f"{statistics.median(each):.1f}", f"{min(each):.1f} to {max(each):.1f}, n = {len(each)}")
            ratio = f"{statistics.median(each) / first:.2f} ({min(turns):.2f} to {max(turns):.2f})"
            requests = f"{statistics.median(seen['requests'] for seen in of_tree):.0f}"
            lines.append((name, commit(tree), *cells, ratio, requests))
    print(table(("rows a second", "commit", "median", "spread", "relative to the first", "requests"), lines))


def write_images() -> list[str]:
    """Small images, which rows share."""
    fsspec.filesystem("s3").mkdir("bucket")
    rng = np.random.default_rng(0)
    uris = [f"s3://bucket/images/{index}.png" for index in range(FILES)]
    for uri in uris:
        storage.write_bytes_atomic(uri, encode_png(rng.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)))
    return uris


def run(tree: Path, step: str, out: str, rows: int, gpus: int, uris: Sequence[str]) -> dict[str, float]:
    """Runs one stream of a checkout; what it prints."""
    script = "new" if (tree / "raypipe" / "streams").is_dir() else "old"
    paths = os.pathsep.join([str(tree.resolve()), str(ROOT / "benchmarks")])
    words = [sys.executable, "-m", f"latency_trees.{script}", step, out, str(rows), str(gpus), *uris]
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tree, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - ourselves
    if done.returncode:
        raise RuntimeError(f"{tree}, {step}: {done.stderr[-1500:]}")
    return dict(json.loads(done.stdout.splitlines()[-1])) if step == "masks" else {}


def commit(tree: Path) -> str:
    """Of a checkout."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=7"]
    return subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603 - fixed words


if __name__ == "__main__":
    typer.run(main)
