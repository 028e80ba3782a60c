"""Outer sweeps: as many trials at once as the machine holds, against one after the other; run nothing else beside it.

    python benchmarks/trials.py

Four trials of the demo's classifier on 96 synthetic images, on a local Ray.
"""

import tempfile
import time
from pathlib import Path

import typer
from measure import machine, table

from raypipe import trials
from raypipe.cluster.connect import connect
from raypipe.cluster.machines import Machine
from raypipe.config import load_config
from raypipe.pipelines.context import Context
from raypipe.synthetic.generate import generate

OPTIONS = [
    *("splits.masks=null", "classifier.epochs=4", "walk.affinity=rgb", "sweep.alphas=[4]", "sweep.betas=[4]"),
    *("sweep.steps=[4]", "sweep.training={classifier.lr: [0.001, 0.002, 0.003, 0.004]}"),
]


def main() -> None:
    """Runs both ways, one after the other, in one Ray."""
    at_once = trials.trials_at_once
    rows = []
    with tempfile.TemporaryDirectory() as name:
        generate(f"{name}/data", num_images=96)
        for serial in (False, True):
            given = [f"manifest={name}/data/manifest.parquet", f"out={name}/{serial}"]
            config = load_config("preset: demo", [*given, *OPTIONS])
            connect(config.cluster)
            count = 1

            def chosen(context: Context, number: int, serial: bool = serial) -> tuple[int, Machine]:
                nonlocal count
                count, part = (1, context.machine) if serial else at_once(context, number)
                return count, part

            trials.trials_at_once = chosen
            started = time.perf_counter()
            result = trials.run_trials(config)
            seconds = time.perf_counter() - started
            assert len(list(Path(config.out, "classifier").iterdir())) == len(result.table)
            rows.append(
                (str(count), f"{seconds:.0f} s", ", ".join(f"{100 * one:.1f}" for one in result.table["score"]))
            )
    print(machine(), end="\n\n")
    print(table(("trials at once", "four trials", "mIoU, %"), rows))


if __name__ == "__main__":
    typer.run(main)
