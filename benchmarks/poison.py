"""Three images among many that no process survives: one needs too much memory, one kills its process, one never ends.

    python benchmarks/poison.py

A whole run on a local Ray, with a segmentation network, of synthetic animals; then the same with three bad images. What
they do, they do where they are decoded, in whatever process that is. Printed are the seconds of each step, and that
exactly these three are in quarantine; the target is 120 s more a step at most, with `cluster.row_timeout=15`.
"""

import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import ray
import typer
from measure import machine, table

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.data.shards import read_shards
from raypipe.run import Run, open_run
from raypipe.schema import QUARANTINE
from raypipe.synthetic.generate import generate
from raypipe.training.trainer import read_metrics

MARK = b"poison:"
POISON = {7: b"memory", 100: b"kills", 211: b"sleeps"}
"""What is written behind the image of a row, where decoders don't look."""

STEPS = ("train_classifier", "make_seeds", "train_affinity", "make_masks", "train_segmenter", "segment")


def poison_decoders() -> None:
    """Makes the decoder of this process look at the mark; Ray calls this in each worker before anything else."""
    from raypipe.data import images

    decode = images.decode_image

    def decode_or_die(content: bytes, **options: Any) -> Any:
        import ctypes
        import threading

        import torch

        match content.rpartition(MARK)[2]:
            case b"memory":
                raise torch.OutOfMemoryError("CUDA out of memory")
            case b"kills":
                ctypes.string_at(0)
            case b"sleeps":
                threading.Event().wait()
        return decode(content, **options)

    images.decode_image = decode_or_die


def main(
    num_images: Annotated[int, typer.Option(min=250)] = 300,
    side: int = 128,
    gpus: Annotated[int, typer.Option(help="logical ones, with RAYPIPE_GPU_DEVICE=cpu")] = 0,
    row_timeout: float = 15,
) -> None:
    """Runs both and compares them."""
    logging.basicConfig(level=logging.WARNING)
    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=gpus,
        object_store_memory=400 * 2**20,
        include_dashboard=False,
        runtime_env={"worker_process_setup_hook": poison_decoders},
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        generate(str(folder / "data"), num_images=num_images, sizes=(side * 3 // 4, side))
        good = read_manifest(str(folder / "data/manifest.parquet"))
        bad = _poisoned(good, folder / "bad")
        seconds = {}
        runs: dict[str, Run] = {}
        for kind, manifest in (("without", good), ("with", bad)):
            path = str(folder / f"{kind}.parquet")
            write_manifest(manifest, path)
            options = [f"manifest={path}", f"out={folder / kind}", f"cluster.row_timeout={row_timeout}"]
            options += [f"{task}.epochs=2" for task in ("classifier", "affinity", "segmenter")]
            options += ["splits.train=null", "splits.masks=null", "refinement.gate=off"]
            options += ["cluster.gpus_per_train_worker=0"] if gpus else []
            runs[kind] = open_run(load_config("preset: demo", options))
            seconds[kind] = {step: _timed(getattr(runs[kind], step)) for step in STEPS}
        print(
            f"{machine()}\n\n{num_images} images of {side} pixels, {gpus} logical GPUs, row_timeout={row_timeout:g}\n"
        )
        rows = [
            (
                step,
                f"{seconds['without'][step]:.0f} s",
                f"{seconds['with'][step]:.0f} s",
                _found(runs["with"], step, bad),
            )
            for step in STEPS
        ]
        print(table(("step", "without", "with the three", "what is in quarantine, or left out"), rows))


def _timed(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _poisoned(good: Manifest, folder: Path) -> Manifest:
    folder.mkdir()
    rows = good.table.to_pylist()
    for index, what in POISON.items():
        image = folder / rows[index]["image_uri"].rsplit("/", 1)[1]
        image.write_bytes(storage.read_bytes(rows[index]["image_uri"]) + MARK + what)
        rows[index]["image_uri"] = str(image)
    return Manifest.from_rows(rows, good.classes)


def _found(run: Run, step: str, manifest: Manifest) -> str:
    """What a step has left out, in words; it must be the three."""
    made = getattr(run, step)()
    if step.startswith("train"):
        artifact = made[0] if isinstance(made, tuple) else made
        unreadable = {epoch["num_unreadable"] for epoch in read_metrics(str(Path(artifact.uri).parent))}
        return f"{sorted(unreadable)} images an epoch"
    quarantine = read_shards(f"{made.uri}/quarantine", schema=QUARANTINE).to_pylist()
    expected = {manifest.table["image_id"][index].as_py() for index in POISON}
    assert {row["image_id"] for row in quarantine} == expected, quarantine
    return "; ".join(sorted(row["reason"] for row in quarantine))


if __name__ == "__main__":
    typer.run(main)
