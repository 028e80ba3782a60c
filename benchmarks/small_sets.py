"""Small sets: what the shipped masks are worth on drawn subsets of a dataset, against the maps that they start from.

    raypipe import voc VOC2012 voc.parquet
    python benchmarks/small_sets.py voc.parquet runs/small_sets --size 100 --seed 0 network.weights=…

A subset has three classes and SIZE images that show one of them, both drawn by its seed. Labels of other classes are
left out, and pixels of other classes don't count. The config is the one that `raypipe config --for` writes for the
subset. Each subset is a run of its own, which goes on where it was interrupted, and has a line of results when it is
done. The command ends with a table of all lines that there are.
"""

import json
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from measure import machine, table
from runs import connect_run, with_values
from scipy.stats import spearmanr

from raypipe import storage
from raypipe.cli_show_config import fitted_config
from raypipe.config import RunConfig, load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.data.shards import iter_shards
from raypipe.ops.predicted_iou import ENOUGH_SKILL, UNKNOWING_WEIGHT
from raypipe.outputs.ledger import SHARDS
from raypipe.pipelines.labels.knowledge import class_skills, read_label_precision
from raypipe.pipelines.tally import read_image_scores
from raypipe.run import Run
from raypipe.schema import IGNORE

NUM_CLASSES = 3
RESULT = "result.json"


def draw_subset(manifest: Manifest, *, size: int, seed: int) -> tuple[list[dict[str, object]], tuple[str, ...]]:
    """Rows and classes of a subset, the classes in the order of the manifest's.

    Raises:
        ValueError: no three classes that are drawn have so many images.
    """
    rng = np.random.default_rng([size, seed])
    rows = [row for row in manifest.table.to_pylist() if row["mask_uri"] and row["split"] != "val"]
    rows = list({row["image_id"]: row for row in rows}.values())
    for _ in range(1000):
        chosen = set(rng.choice(manifest.classes, NUM_CLASSES, replace=False).tolist())
        classes = tuple(name for name in manifest.classes if name in chosen)
        shown = [row | {"labels": [name for name in row["labels"] if name in chosen]} for row in rows]
        shown = sorted((row for row in shown if row["labels"]), key=lambda row: str(row["image_id"]))
        if len(shown) >= size:
            return [shown[index] for index in np.sort(rng.permutation(len(shown))[:size])], classes
    raise ValueError(f"no three classes have {size} images: lower --size")


def write_subset(manifest: Manifest, folder: Path, *, size: int, seed: int) -> str:
    """Writes a subset's manifest and true masks, unless it is there; its URI."""
    uri = folder / "manifest.parquet"
    if not uri.exists():
        rows, classes = draw_subset(manifest, size=size, seed=seed)
        ids = np.full(256, IGNORE, np.uint8)
        ids[0] = 0
        for number, name in enumerate(classes, start=1):
            ids[1 + manifest.classes.index(name)] = number
        for row in rows:
            mask = folder / "truth" / f"{row['image_id']}.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            mask.write_bytes(encode_png(ids[decode_mask(storage.read_bytes(str(row["mask_uri"])))]))
            row |= {"mask_uri": str(mask), "split": "all"}
        write_manifest(Manifest.from_rows(rows, classes), str(uri))
    return str(uri)


def measure(config: RunConfig) -> dict[str, object]:
    """Scores of a subset's run, and what its gates and its classifier say."""
    plain = {"refinement": {"method": "none", "gate": "off"}}
    run = connect_run(config)
    classifier = run.train_classifier()
    shipped = scored(run)
    precision = read_label_precision(classifier)
    assert precision is not None
    correlations = _correlations(run, classifier_skills=class_skills(classifier))
    ungated = with_values(config, refinement={"gate": "off"})
    return {
        "classes": run.context.classes,
        "cam": scored(connect_run(with_values(config, walk={"num_steps": 0}, **plain))),
        "walk": scored(connect_run(with_values(config, **plain))),
        "ungated": scored(connect_run(ungated)),
        "shipped": shipped,
        "decisions": [str(each) for each in run.decide_gates().decisions],
        "label_map": precision.mean("precision"),
        "label_chance": precision.mean("chance"),
        "label_learned": precision.mean("learned"),
        **correlations,
    }


def scored(run: Run) -> float:
    """Mean IoU in % of a run's masks, refined if they are."""
    _, scores = run.evaluate()
    return round(100 * [score for score in scores if score.stage != "cam"][-1].mean_iou, 2)


def _correlations(run: Run, *, classifier_skills: Sequence[float] | None) -> dict[str, float]:
    """Spearman of predicted and true IoU of the images, as it is and as if the classifier were trusted."""
    folder, scores = run.evaluate()
    stages = [score.stage for score in scores if score.stage != "cam"]
    true = {
        row["image_id"]: row["mean_iou"]
        for one in read_image_scores(folder.uri, stage=stages[0])
        for row in one.to_pylist()
    }
    labels = {row["image_id"]: row["labels"] for row in read_manifest(run.config.manifest).table.to_pylist()}
    skills = dict(zip(run.context.classes, classifier_skills or [1.0] * len(run.context.classes), strict=True))
    pairs = []
    for image_id, predicted in _predicted(run):
        names = labels[image_id]
        trust = min(1.0, float(np.mean([skills[name] for name in names])) / ENOUGH_SKILL)
        untold = (predicted - (1 - trust) * UNKNOWING_WEIGHT / (len(names) + 1)) / trust if trust else np.nan
        pairs.append((predicted, untold, true[image_id]))
    told, untold, truth = np.array(pairs).T
    known = np.isfinite(untold)
    return {
        "predicted": round(float(told.mean()), 3),
        "true": round(float(truth.mean()), 3),
        "spearman": round(float(spearmanr(told, truth)[0]), 3),
        "spearman_trusted": round(float(spearmanr(untold[known], truth[known])[0]), 3),
    }


def _predicted(run: Run) -> Iterator[tuple[str, float]]:
    masks = run.make_masks()
    for _, part in iter_shards(storage.join(masks.uri, SHARDS), columns=["image_id", "predicted_iou"]):
        yield from ((row["image_id"], row["predicted_iou"]) for row in part.to_pylist())


def results_table(folder: Path) -> str:
    """A line a subset, and the mean of the differences."""
    rows: list[tuple[object, ...]] = []
    gains = []
    for file in sorted(folder.glob(f"*/{RESULT}")):
        found = json.loads(file.read_text())
        gains.append(found["shipped"] - found["cam"])
        precision = f"{found['label_map']:.2f} ({found['label_chance']:.2f})"
        numbers = (found[name] for name in ("cam", "walk", "ungated", "shipped"))
        spearman = f"{found['spearman']} ({found['spearman_trusted']})"
        rows.append((file.parent.name, ", ".join(found["classes"]), precision, *numbers, f"{gains[-1]:+.1f}", spearman))
    names = ("label mAP (chance)", "CAM at the pipeline's background", "walk", "walk + CRF, no gates")
    spearman = "Spearman of predicted IoU (trusting the classifier)"
    text = table(("subset", "classes", *names, "shipped", "shipped − CAM", spearman), rows)
    return f"{text}\n\nshipped − CAM: mean {statistics.mean(gains):+.1f}, lowest {min(gains):+.1f}, n = {len(gains)}"


def main(
    manifest: str,
    folder: Path,
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[NAME=VALUE]...")] = None,
    size: Annotated[list[int] | None, typer.Option()] = None,
    seed: Annotated[list[int] | None, typer.Option()] = None,
) -> None:
    """Runs the subsets that aren't done yet, and prints the table of all that are."""
    print(machine(), end="\n\n")
    whole = read_manifest(manifest)
    for number in size or [100, 300]:
        for each in seed or range(5):
            own = folder.absolute() / f"{number}_{each}"
            if (own / RESULT).exists():
                continue
            uri = write_subset(whole, own, size=number, seed=each)
            text = fitted_config(uri, preset="voc_mobilenet_v2", overrides=[f"out={own}/run", *(overrides or [])])
            (own / "config.yaml").write_text(text)
            (own / RESULT).write_text(json.dumps(measure(load_config(text)), indent=1))
    print(results_table(folder))


if __name__ == "__main__":
    typer.run(main)
