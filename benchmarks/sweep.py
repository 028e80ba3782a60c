"""What a sweep costs beside one run of the masks, and that its settings are those of single runs.

    python benchmarks/sweep.py config.yaml splits.masks=[train]

The config names trained networks in `checkpoints`. Both start from nothing but them, in the same Ray, in turns: maps,
affinities and one walk an image, without dense CRF; maps, affinities and the grid, its best settings once more at full
resolution, the choice and the plots. Then masks of some images are made with a few of the best settings, and their
pixels are counted against those of the sweep, image by image.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Annotated

import numpy as np
import typer
from measure import machine, table
from runs import connect_run, with_values

from raypipe import storage
from raypipe.config import RunConfig, load_config
from raypipe.data.images import decode_mask
from raypipe.data.manifest import class_ids_of
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.data.shards import read_shards
from raypipe.data.truth import read_truth
from raypipe.outputs.ledger import SHARDS
from raypipe.pipelines.steps import walk_choice
from raypipe.pipelines.walk.setting_scores import sweep_plan
from raypipe.pipelines.walk.sweep import grid
from raypipe.run import Run
from raypipe.schema import MASKS, SETTINGS

NUM_CHECKED, NUM_CHECKED_IMAGES = 3, 40


def seconds(config: RunConfig, step: Callable[[Run], object]) -> tuple[float, Run]:
    """Wall time of a step from nothing, and the run."""
    run = connect_run(with_values(config, out=tempfile.mkdtemp()))
    started = time.monotonic()
    step(run)
    return time.monotonic() - started, run


def finalists_folder(swept: Run, finalists: list[int]) -> str:
    """Where a sweep has scored its best settings at full resolution; given are their indices in the grid."""
    settings = grid(swept.context)
    affinity = swept.train_affinity()
    plan = sweep_plan(
        swept.context,
        [settings[index] for index in finalists],
        maps=swept.find_maps(),
        affinity=affinity,
        stride=1,
        choice=walk_choice(swept.config, affinity),
    )
    return plan.artifact(swept.config.out).uri


def num_differing(run: Run, scored: str, position: int) -> tuple[int, int]:
    """Images whose counts differ between masks and the sweep's finalist at a position, and all images."""
    manifest = read_manifest(run.config.manifest)
    rows = {row["image_id"]: row for row in manifest.table.to_pylist()}
    scores = {row["image_id"]: row for row in read_shards(storage.join(scored, SHARDS), schema=SETTINGS).to_pylist()}
    differing = compared = 0
    for mask_row in read_shards(storage.join(run.make_masks().uri, SHARDS), schema=MASKS).to_pylist():
        row, of_image = rows[mask_row["image_id"]], scores[mask_row["image_id"]]
        truth, _ = read_truth(row["mask_uri"], num_classes=len(manifest.classes) + 1)
        mask, labels = decode_mask(mask_row["mask"]), [0, *class_ids_of(row["labels"], manifest.classes)]
        counts = [
            [np.count_nonzero((mask == label) & (truth == label)) for label in labels],
            [np.count_nonzero((mask == label) & (truth != 255)) for label in labels],
        ]
        of_sweep = [
            np.frombuffer(of_image[name], "<i4").reshape(-1, len(labels))[position].tolist()
            for name in ("hits", "predicted")
        ]
        differing += counts != of_sweep
        compared += 1
    return differing, compared


def main(
    config: Annotated[str, typer.Argument(help="config with trained networks in `checkpoints`")],
    overrides: Annotated[list[str] | None, typer.Argument(help="dotted overrides")] = None,
    num_runs: Annotated[int, typer.Option(min=1, help="of each")] = 2,
) -> None:
    """Prints the table of benchmarks/sweep.md."""
    print(machine(), end="\n\n")
    base = load_config(
        storage.read_bytes(config).decode(), [*(overrides or []), "refinement.method=none", "refinement.gate=off"]
    )
    steps: dict[str, Callable[[Run], object]] = {"masks": Run.make_masks, "sweep": Run.sweep}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(num_runs):
        for name, step in steps.items():
            taken, run = seconds(base, step)
            times[name].append(taken)
    swept = run
    rows = [
        (name, f"{statistics.mean(t):.0f} s ({min(t):.0f} to {max(t):.0f}, n = {len(t)})") for name, t in times.items()
    ]
    print(table(("step", "time"), rows))
    ratios = [sweep / masks for masks, sweep in zip(times["masks"], times["sweep"], strict=True)]
    print(f"\nsweep / masks: {', '.join(f'{ratio:.2f}' for ratio in ratios)}\n")
    result = swept.sweep()
    print(f"{len(result.table)} settings, {result.num_images} images, {result.table['mask_mean_iou'].count()} in full")
    in_full = result.table[result.table["mask_mean_iou"].notna()].sort_index()
    finalists = list(in_full.sort_values("objective", ascending=False, kind="stable").index)  # as they were scored
    scored = finalists_folder(swept, finalists)
    checks, few = [], storage.join(tempfile.mkdtemp(), "manifest.parquet")
    write_manifest(read_manifest(base.manifest).limit(NUM_CHECKED_IMAGES), few)
    for position in np.linspace(0, len(finalists) - 1, NUM_CHECKED, dtype=int).tolist():
        setting = result.table.loc[finalists[position], ["alpha", "beta", "num_steps", "radius"]].to_dict()
        setting |= {name: int(setting[name]) for name in ("num_steps", "radius")}
        alone = connect_run(with_values(base, manifest=few, out=tempfile.mkdtemp(), walk=setting))
        differing, compared = num_differing(alone, scored, position)
        checks.append((", ".join(f"{name} {value:g}" for name, value in setting.items()), f"{differing} of {compared}"))
    print(table(("setting", "images whose pixel counts differ from a run of its own"), checks))


if __name__ == "__main__":
    typer.run(main)
