"""What saliency is worth: none, EPS, EPS++, and EPS++ with EPS's tau, trained and scored alike.

    python benchmarks/saliency.py synthetic OUT [--rate 0 --rate 0.2] [--method eps++] [--seed 0] [--plot FILE.svg]
        [NAME=VALUE]...
    python benchmarks/saliency.py voc OUT --root VOC --weights FILE [--method eps++] saliency.weights=FILE
        [NAME=VALUE]...
    python benchmarks/saliency.py cost [--num-runs 5]

A cell is a method at a rate of saliency errors and a seed: classifier, seeds, AffinityNet, masks, scores on train, on
val and on the images of both (`all`). All cells share the recipe (demo.yaml, voc_mobilenet_v2.yaml) and its values.
What is finished is found by its digest, so the same command again goes on where it was, and a cell that is there costs
seconds. After each cell `results.json` and `results.md` are written anew; cells of earlier commands stay in them.
`synthetic` ends with means over the seeds, rate by rate. `cost` times a training step of each method in turns, without
Ray.
"""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer
from matplotlib.figure import Figure
from measure import default_device, machine, table, time_interleaved
from runs import connect_run

from raypipe import uri
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.formats.voc.read import read_voc
from raypipe.imports.finish import finish
from raypipe.networks.precision import autocast
from raypipe.ops.metrics import mean_iou
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import Context
from raypipe.pipelines.evaluate import read_confusions
from raypipe.synthetic.generate import generate
from raypipe.training.batch import Batch
from raypipe.training.trainer import read_metrics

METHODS: dict[str, list[str]] = {
    "none": [],
    "eps": ["classifier.saliency=eps"],
    "eps++": ["classifier.saliency=eps++"],
    "eps++ with tau": ["classifier.saliency=eps++", "classifier.saliency_loss.ird_tau=0.4"],
}
SYNTHETIC = [
    "preset=demo",
    "classifier.epochs=40",
    "affinity.epochs=8",
    # The dense CRF takes a third of the recipe's time; trimaps come out as good at stride 4.
    "trimaps.crf_stride=4",
    "refinement.method=none",
    "refinement.gate=off",
    "segmenter.enabled=false",
    "cluster.train_workers=1",
]
NUM_IMAGES = 240

app = typer.Typer(no_args_is_help=True, help=__doc__)

Out = Annotated[Path, typer.Argument(help="folder of data, runs and results")]
Overrides = Annotated[list[str] | None, typer.Argument(help="dotted overrides of all cells")]
Methods = Annotated[list[str] | None, typer.Option("--method", help=f"of {', '.join(METHODS)}; default: all")]
Seeds = Annotated[list[int] | None, typer.Option("--seed", help="of the trainings; default: 0")]


def run_cell(out: Path, manifest: Path, method: str, *, seed: int, rate: float | None, options: list[str]) -> None:
    """Computes a cell, unless it is there, and adds it to the results."""
    given = [f"manifest={manifest}", f"out={out / 'runs'}", f"seed={seed}"]
    started = time.monotonic()
    run = connect_run(load_config("", [*options, *METHODS[method], *given]))
    evaluation, found = run.evaluate()
    classifier = run.train_classifier()
    scores = {f"{score.stage} {score.split}": round(100 * score.mean_iou, 2) for score in found}
    confusions = read_confusions(evaluation.uri)
    for stage in dict.fromkeys(score.stage for score in found):
        pooled = np.sum([matrix for (of, _), matrix in confusions.items() if of == stage], axis=0)
        scores[f"{stage} all"] = round(100 * mean_iou(pooled), 2)
    epochs = read_metrics(classifier.uri.rsplit("/", 1)[0])
    seconds = time.monotonic() - started
    steady = [epoch["images_per_second"] for epoch in epochs[1:]] or [epochs[0]["images_per_second"]]
    cell = {
        "method": method,
        "rate": rate,
        "seed": seed,
        "scores": scores,
        "images_per_second": round(sorted(steady)[len(steady) // 2], 1),
        "dropped_shares": [round(epoch.get("dropped_share", 0.0), 4) for epoch in epochs],
        "seconds": round(seconds),
        "classifier": classifier.digest,
        "options": options,
        "machine": machine(),
    }
    add_to_results(out, cell)
    print(json.dumps(cell), flush=True)


def add_to_results(out: Path, cell: dict[str, Any]) -> None:
    """Writes `results.json` and `results.md`; a cell that was computed before keeps its time."""
    path = out / "results.json"
    cells = json.loads(path.read_text()) if path.exists() else []
    key = ("method", "rate", "seed", "options")
    for earlier in [found for found in cells if all(found[name] == cell[name] for name in key)]:
        cells.remove(earlier)
        if earlier["classifier"] == cell["classifier"]:
            cell["seconds"] = max(cell["seconds"], earlier["seconds"])
    cells.append(cell)
    path.write_text(json.dumps(cells, indent=1))
    (out / "results.md").write_text(results_table(cells) + "\n")


def results_table(cells: list[dict[str, Any]]) -> str:
    """A row a cell, in the order of rates, seeds and methods."""
    names = sorted({name for cell in cells for name in cell["scores"]})
    order = list(METHODS)
    rows = [
        (
            "-" if cell["rate"] is None else cell["rate"],
            cell["seed"],
            cell["method"],
            *(f"{cell['scores'][name]:.1f}" if name in cell["scores"] else "" for name in names),
            cell["images_per_second"],
            f"{100 * cell['dropped_shares'][0]:.0f} to {100 * cell['dropped_shares'][-1]:.0f} %",
            cell["seconds"],
        )
        for cell in sorted(cells, key=lambda cell: (cell["rate"] or 0, cell["seed"], order.index(cell["method"])))
    ]
    header = ("error rate", "seed", "method", *names, "images/s of the classifier's training", "dropped", "seconds")
    return table(header, rows)


def means_over_seeds(cells: list[dict[str, Any]]) -> pd.DataFrame:
    """A row a method and rate: mean, min, max and count of each score."""
    scores = pd.DataFrame([{"method": cell["method"], "rate": cell["rate"], **cell["scores"]} for cell in cells])
    scores["method"] = pd.Categorical(scores["method"], METHODS, ordered=True)
    return scores.groupby(["method", "rate"], observed=True).agg(["mean", "min", "max", "count"])


def rates_table(cells: list[dict[str, Any]]) -> str:
    """Means over the seeds (lowest to highest), and what they lose against the lowest rate."""
    means = means_over_seeds(cells)
    names = list(means.columns.unique(0))
    rows = []
    for (method, rate), row in means.iterrows():
        first = means.loc[method].iloc[0]
        values: list[str] = []
        for name in names:
            mean, low, high, count = row[name][["mean", "min", "max", "count"]]
            spread = f" ({low:.1f} to {high:.1f})" if count > 1 else ""
            values += [f"{mean:.1f}{spread}", f"{first[name, 'mean'] - mean:.1f}"]
        rows.append(("-" if method == "none" else f"{rate:g}", method, *values, int(row[names[0], "count"])))
    header = [text for name in names for text in (name, "lost")]
    return table(("error rate", "method", *header, "n"), rows)


def draw(cells: list[dict[str, Any]], path: Path) -> None:
    """Scores of all images against the rate of errors, maps and masks; bars from the lowest to the highest seed."""
    means = means_over_seeds(cells)
    figure = Figure(figsize=(8, 3.4), layout="constrained")
    panels = {"maps": "cam all", "masks after the walk": "walk all"}
    for axes, (title, name) in zip(figure.subplots(1, 2), panels.items(), strict=True):
        for method in means.index.unique("method"):
            line = means.loc[method][name]
            if method != "none":
                spread = [line["mean"] - line["min"], line["max"] - line["mean"]]
                axes.errorbar(line.index, line["mean"], yerr=spread, marker="o", capsize=3, label=method)
        axes.set_title(title)
        axes.set_xlabel("probability of each error in a picture")
        axes.set_ylabel("mIoU, %")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.savefig(path)


def chosen(methods: list[str] | None) -> list[str]:
    """The methods asked for.

    Raises:
        ValueError: an unknown name.
    """
    if unknown := [name for name in methods or [] if name not in METHODS]:
        raise typer.BadParameter(f"no method {unknown}: choose of {', '.join(METHODS)}")
    return methods or list(METHODS)


@app.command()
def synthetic(
    out: Out,
    overrides: Overrides = None,
    rates: Annotated[
        list[float] | None, typer.Option("--rate", help="of saliency errors; default: 0 0.2 0.4 0.6")
    ] = None,
    methods: Methods = None,
    seeds: Seeds = None,
    num_images: Annotated[int, typer.Option(min=8)] = NUM_IMAGES,
    plot: Annotated[Path | None, typer.Option(help="where to draw the scores against the rates")] = None,
) -> None:
    """The synthetic set, with saliency maps that are wrong at known rates; `none` doesn't depend on the rate."""
    rates = rates or [0.0, 0.2, 0.4, 0.6]
    options = [*SYNTHETIC, *(overrides or [])]
    for seed in seeds or [0]:
        for rate in rates:
            folder = out / f"data-{num_images}-{rate:g}"
            if not (folder / "manifest.parquet").exists():
                generate(str(folder), num_images=num_images, saliency_errors=rate)
            for method in chosen(methods):
                if method != "none" or rate == rates[0]:
                    run_cell(out, folder / "manifest.parquet", method, seed=seed, rate=rate, options=options)
    print((out / "results.md").read_text())
    alike = [cell for cell in json.loads((out / "results.json").read_text()) if cell["options"] == options]
    print(rates_table(alike))
    if plot is not None:
        draw(alike, plot)


@app.command()
def voc(
    out: Out,
    overrides: Overrides = None,
    *,
    root: Annotated[str, typer.Option(help="folder in VOC's layout")],
    weights: Annotated[str, typer.Option(help="MobileNetV2's, for both networks")],
    labels: Annotated[str | None, typer.Option(help="CSV image_id,labels instead of Annotations")] = "image_labels.csv",
    limit: Annotated[int | None, typer.Option(min=1, help="images of each list")] = None,
    methods: Methods = None,
    seeds: Seeds = None,
) -> None:
    """PASCAL VOC with saliency maps by the network of `saliency.weights`."""
    manifest = out / f"manifest-{limit or 'all'}.parquet"
    found = finish(read_voc(uri.absolute(root), labels=labels)).manifest
    write_manifest(found if limit is None else found.limit(limit), str(manifest))
    for seed in seeds or [0]:
        for method in chosen(methods):
            options = ["preset=voc_mobilenet_v2", f"network.weights={weights}", *(overrides or [])]
            run_cell(out, manifest, method, seed=seed, rate=None, options=options)
    print((out / "results.md").read_text())


@app.command()
def cost(
    num_runs: Annotated[int, typer.Option(min=1)] = 5,
    num_crops: Annotated[int, typer.Option(min=1)] = 8,
) -> None:
    """A step of the classifier of voc_mobilenet_v2.yaml, random weights and crops: forward, loss, backward."""
    print(machine(), end="\n\n")
    kinds = METHODS | {"eps++, stride 4": ["classifier.saliency=eps++", "classifier.saliency_loss.stride=4"]}
    steps = [_make_step(options, num_crops=num_crops) for options in kinds.values()]
    kinds["eps++ without drop"] = METHODS["eps++"]
    steps.append(_make_step(METHODS["eps++"], num_crops=num_crops, ird=False))
    timings = time_interleaved(steps, num_runs=num_runs)
    rows = [
        (name, timing, f"{num_crops / timing.median:.1f}", f"{timing.median / timings[0].median:.2f}")
        for name, timing in zip(kinds, timings, strict=True)
    ]
    print(table(("method", f"step of {num_crops} crops", "images/s", "relative"), rows))


def _make_step(options: list[str], *, num_crops: int, **changes: Any) -> Callable[[], None]:
    overrides = ["preset=voc_mobilenet_v2", "manifest=unused", "out=unused", *options]
    context = Context(load_config("", overrides), Manifest.from_rows([], [f"class {number}" for number in range(20)]))
    training, device = context.config.classifier, default_device()
    task = replace(classifier_task(context), **changes).at_epoch(training.epochs - 1, training.epochs)
    network = task.build().to(device).train()
    rng = torch.Generator().manual_seed(0)
    shapes = task.target_shapes(training.crop_size)
    batch = Batch(
        torch.randint(256, (num_crops, 3, training.crop_size, training.crop_size), generator=rng, dtype=torch.uint8),
        {
            name: torch.randint(2, (num_crops, *shape), generator=rng, dtype=torch.uint8)
            * (255 if len(shape) > 1 else 1)
            for name, shape in shapes.items()
        },
        torch.ones(num_crops, dtype=torch.bool),
    ).to(device)

    def step() -> None:
        crops = network.preprocessing.normalize(batch.crops)
        with autocast(device, context.config.precision):
            output = network(crops.contiguous(memory_format=torch.channels_last))
        task.loss(*task.loss_terms(output, batch)).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    app()
