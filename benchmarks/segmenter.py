"""The segmentation network, trained on maps, on walk masks, on true masks, and on a few true masks beside the walk's.

    python benchmarks/segmenter.py config.yaml [NAME=VALUE]... --seeds 3

The config names trained networks in `checkpoints`, as another seed would train others, and has true masks of all
images. All arms train the same network on the images of `splits.train` for about as many steps, and are scored on
`--split`, whose labels nobody looks at. What is finished isn't computed again, so the command goes on after an
interruption.
"""

import json
import statistics
from typing import Annotated

import numpy as np
import typer
from measure import machine, table
from runs import connect_run, with_values

from raypipe import storage
from raypipe.config import RunConfig, load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.pipelines.evaluate import score_segments
from raypipe.results import Score
from raypipe.schema import SUPERVISED, UNSUPERVISED, WEAK
from raypipe.streams.collect import draw

CAM_ALPHA = round(float(np.log(0.4) / np.log(0.6)), 3)
"""Background exponent under which a map is above the background exactly where it is above 0.4, the constant that is
best on train: (1 - 0.4)^alpha = 0.4."""

ENDS = ("maps", "walk", "true")
SHARES = (5, 10, 25)


def arms(num_seeds: int) -> list[tuple[str, int]]:
    """(name, seed) of what is trained, the ends first."""
    ends = [(name, seed) for seed in range(num_seeds) for name in ENDS]
    return [*ends, *((f"{share} % true + walk", 0) for share in SHARES), ("10 % true alone", 0)]


def supervision(image_ids: list[str], name: str) -> list[str]:
    """Of each image in an arm."""
    if name in ENDS:
        return [SUPERVISED if name == "true" else WEAK] * len(image_ids)
    share, rest = int(name.split()[0]), WEAK if name.endswith("walk") else UNSUPERVISED
    chosen = set(draw(image_ids, round(share / 100 * len(image_ids))))
    return [SUPERVISED if index in chosen else rest for index in range(len(image_ids))]


def arm_config(config: RunConfig, manifest: Manifest, name: str, seed: int, *, num_steps: int) -> RunConfig:
    """The config of an arm, with a manifest of its own."""
    trained = manifest.select(splits=config.splits.train).table["image_id"].to_pylist()
    kinds = dict(zip(trained, supervision(trained, name), strict=True))
    rows = [row | {"supervision": kinds.get(row["image_id"])} for row in manifest.table.to_pylist()]
    uri = storage.join(config.out, "segmenter_arms", f"{name.replace(' ', '_').replace('%', 'percent')}.parquet")
    write_manifest(Manifest.from_rows(rows, manifest.classes), uri)
    num_images = sum(kind != UNSUPERVISED for kind in kinds.values())
    steps_per_epoch = -(-num_images // config.segmenter.batch_size)
    epochs = max(1, round(num_steps / steps_per_epoch))
    walk = {"num_steps": 0, "alpha": CAM_ALPHA} if name == "maps" else {}
    return with_values(config, manifest=uri, seed=seed, segmenter={"epochs": epochs}, walk=walk)


def score(config: RunConfig, split: str) -> Score:
    """Trains an arm, segments the split, scores it."""
    run = connect_run(with_values(config, segmentation={"splits": [split]}, evaluation={"splits": [split]}))
    return score_segments(run.context, run.segment())[0]


def main(
    config: Annotated[str, typer.Argument(help="YAML file of a run.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Dotted overrides.")] = None,
    split: Annotated[str, typer.Option(help="Split to score on.")] = "val",
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each end.")] = 3,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each training, about.")] = 600,
    only: Annotated[list[str] | None, typer.Option(help="Arms to run; all by default.")] = None,
) -> None:
    """Prints the tables and writes `segmenter_arms/results.json` under the run's `out`."""
    resolved = load_config(storage.read_bytes(config).decode(), overrides or [])
    manifest = read_manifest(resolved.manifest)
    results: dict[str, list[Score]] = {}
    for name, seed in arms(seeds):
        if only and name not in only:
            continue
        found = score(arm_config(resolved, manifest, name, seed, num_steps=steps), split)
        results.setdefault(name, []).append(found)
        print(f"{name}, seed {seed}: {100 * found.mean_iou:.1f} on {found.num_images} images", flush=True)
        contents = {name: [found.class_iou for found in scores] for name, scores in results.items()}
        uri = storage.join(resolved.out, "segmenter_arms", "results.json")
        storage.write_bytes_atomic(uri, json.dumps(contents, indent=1).encode())
    print(
        f"\n{machine()}; {resolved.network.backbone}, {resolved.segmenter.head}, about {steps} steps of "
        f"{resolved.segmenter.batch_size} crops of {resolved.segmenter.crop_size}; {split}, mIoU in percent\n"
    )
    print(table(("trained on", "n", "mIoU", "of true masks' mIoU"), summary(results)))
    print()
    print(table(("class", *results), per_class(results)))


def summary(results: dict[str, list[Score]]) -> list[tuple[str, ...]]:
    """A row an arm: mean and range over seeds, and the share of what all true masks give."""
    full = [found.mean_iou for found in results.get("true", [])]
    rows = []
    for name, scores in results.items():
        values = [found.mean_iou for found in scores]
        mean = statistics.mean(values)
        spread = f" ({100 * min(values):.1f} to {100 * max(values):.1f})" if len(values) > 1 else ""
        share = f"{100 * mean / statistics.mean(full):.0f} %" if full else ""
        rows.append((name, str(len(values)), f"{100 * mean:.1f}{spread}", share))
    return rows


def per_class(results: dict[str, list[Score]]) -> list[tuple[str, ...]]:
    """IoU of each class, the mean over seeds; a column an arm."""
    rows = []
    for name in next(iter(results.values()))[0].class_iou:
        means = [np.nanmean([found.class_iou[name] for found in scores]) for scores in results.values()]
        rows.append((name, *(f"{100 * mean:.1f}" for mean in means)))
    return rows


if __name__ == "__main__":
    typer.run(main)
