"""Scores of masks that need no truth, against the truth: which choose a good setting.

    python benchmarks/truth_free.py synthetic/config.yaml voc/config.yaml

Each config is that of a finished run (its networks are given as `checkpoints`, or found under its `out`); the first is
the synthetic dataset's. Settings are those of `sweep`, each the same for all images, masks are compared at a quarter of
the resolution, without post-processing. Whatever is chosen by truth is chosen on the synthetic images and on one half
of VOC's train (every second image_id), and reported on the other half and on val.
"""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from measure import machine, table
from numpy.typing import NDArray
from runs import find_networks, read_images
from scipy.stats import spearmanr

from raypipe import storage
from raypipe.config import RunConfig, load_config
from raypipe.networks.precision import autocast
from raypipe.ops.affinity import grid_pairs
from raypipe.ops.cam import merge_cams, normalize_cams, resize_cam, upsample_to_image
from raypipe.ops.choice import choose_by_objective, choose_with_truth
from raypipe.ops.floods import covered_border, covered_share
from raypipe.ops.metrics import mean_iou_of_counts
from raypipe.ops.separation import objective, separation
from raypipe.ops.walk_choice import best_labels
from raypipe.pipelines.context import open_context
from raypipe.pipelines.steps import compute_cams
from raypipe.pipelines.walk.setting_scores import sweep_plan
from raypipe.schema import GRID_STRIDE
from raypipe.stages.base import Row
from raypipe.stages.cams import ComputeCams
from raypipe.stages.cells import cell_colours
from raypipe.stages.passes import run_passes
from raypipe.stages.score_settings import ScoreSettings
from raypipe.stages.walk_scores import PixelCounts, Setting
from raypipe.streams.collect import collect

STRIDE: Literal[4] = 4
HIGHER_IS_BETTER = {
    "feature separation": "regions part the AffinityNet's features",
    "colour separation": "regions part the cells' colours",
    "objective": "both: features x colours^(1/4)",
    "class evidence": "the classifier's maps are higher inside a class's region than outside",
    "image edges": "gradient of the colours at the mask's edges, against the image's mean",
    "cut": "weak affinities across the mask's edges (minus the cut over its expectation)",
    "margin": "best minus second-best score",
    "area": "small objects (minus their share of the image)",
    "border": "few objects at the image's border",
    "stable in t": "agreement with the neighbouring numbers of steps",
    "stable in beta": "agreement with the neighbouring betas",
    "mirror": "agreement of the masks of the image's maps and its mirror image's",
}
NUM_LABELLED = (10, 50)
NUM_DRAWS = 20


@dataclass
class Scored:
    """Scores of N images x S settings."""

    cues: dict[str, NDArray[np.float64]]
    hits: NDArray[np.float64]
    """(N, S, C), as `predicted`; `truth` is (N, C)."""
    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]

    def take(self, index: Any) -> "Scored":
        """A part of the images."""
        cues = {name: values[index] for name, values in self.cues.items()}
        return Scored(cues, self.hits[index], self.predicted[index], self.truth[index])

    def mean_iou(self, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """Of each setting, over the weighted images."""
        weights = np.ones(len(self.hits)) if weights is None else weights
        sums = [np.tensordot(weights, counts, 1) for counts in (self.hits, self.predicted, self.truth)]
        return mean_iou_of_counts(*sums)

    def score(self, name: str, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        """A cue's mean of each setting."""
        weights = np.ones(len(self.hits)) if weights is None else weights
        if name != "objective":
            mean: NDArray[np.float64] = weights @ self.cues[name] / weights.sum()
            return mean
        parts = [torch.from_numpy(self.score(f"{kind} separation", weights)) for kind in ("feature", "colour")]
        return objective(*parts).numpy()


def compute_cues(
    stage: ScoreSettings, row: Row, plain_cam: torch.Tensor, mirror_cam: torch.Tensor
) -> tuple[dict[str, torch.Tensor], PixelCounts]:
    """All cues (S,) of an image's masks with the settings of a stage, and the masks' pixel counts.

    Args:
        stage: set up.
        row: with maps.
        plain_cam: maps of the image in one pass.
        mirror_cam: maps of its mirror image, mirrored back.
    """
    image = stage.prepare(row)
    assert image.pixels is not None
    assert image.truth is not None
    of_cells = stage.source([image.pixels])[0]
    features = of_cells.features
    size = (image.truth.shape[0], image.truth.shape[1])
    num_labels, num_settings = 1 + len(image.class_ids), len(stage.settings)
    counts = PixelCounts(torch.from_numpy(image.truth), class_ids=image.class_ids, device=features.device)
    labels = torch.zeros(num_settings, *size, dtype=torch.uint8)
    cells = torch.zeros(num_settings, *features.shape[1:], dtype=torch.uint8)
    margins = torch.zeros(num_settings)
    colours = cell_colours(image.pixels)
    for indices, maps in stage.scores.walk(image.cam, of_cells, colours):
        fine = upsample_to_image(maps, size=size, stride=2)
        labels[indices] = best_labels(fine, num_backgrounds=len(indices))
        cells[indices] = best_labels(maps, num_backgrounds=len(indices))
        counts.add(indices, labels[indices])
        margins[indices] = _margins(maps, len(indices))
    pixels = F.adaptive_avg_pool2d(torch.from_numpy(image.pixels).permute(2, 0, 1).float()[None] / 255, size)[0]
    grid = (len({s.alpha for s in stage.settings}), len({s.beta for s in stage.settings}), -1)
    by_setting = labels.reshape(*grid, *size)
    cues: dict[str, torch.Tensor] = {
        "feature separation": separation(features, cells, num_labels=num_labels),
        "colour separation": separation(colours, cells, num_labels=num_labels),
        "class evidence": _class_evidence(labels, resize_cam(image.cam, size=size)),
        "image edges": _edge_contrast(labels, pixels),
        "cut": -_relative_cut(cells, of_cells.affinity(radius=stage.settings[0].radius)),
        "margin": margins,
        "area": -covered_share(labels),
        "border": -covered_border(labels),
        "stable in t": _stability(by_setting, dim=2).flatten(),
        "stable in beta": _stability(by_setting, dim=1).flatten(),
        "mirror": torch.zeros(num_settings),
    }
    both = zip(*(stage.scores.walk(cam, of_cells, colours) for cam in (plain_cam, mirror_cam)), strict=True)
    for (indices, plain), (_, mirrored) in both:
        sides = [best_labels(maps, num_backgrounds=len(indices)) for maps in (plain, mirrored)]
        cues["mirror"][indices] = _agreement(*sides)
    return cues, counts


def _margins(maps: torch.Tensor, num_backgrounds: int) -> torch.Tensor:
    classes = maps[num_backgrounds:]
    scores = torch.stack([torch.cat([background[None], classes]) for background in maps[:num_backgrounds]])
    best = (scores / scores.sum(dim=1, keepdim=True).clamp(min=1e-12)).topk(2, dim=1).values
    return (best[:, 0] - best[:, 1]).mean(dim=(1, 2))


def _class_evidence(labels: torch.Tensor, cam: torch.Tensor) -> torch.Tensor:
    values = []
    for index, one in enumerate(cam, start=1):
        inside = (labels == index).float()
        of_region = (inside * one).sum(dim=(1, 2)) / inside.sum(dim=(1, 2)).clamp(min=1)
        of_rest = ((1 - inside) * one).sum(dim=(1, 2)) / (1 - inside).sum(dim=(1, 2)).clamp(min=1)
        values.append(of_region - of_rest)
    return torch.stack(values).mean(dim=0)


def _edge_contrast(labels: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
    total, number, mean = torch.zeros(len(labels)), torch.zeros(len(labels)), 0.0
    for dim in (1, 2):
        gradient = pixels.diff(dim=dim).abs().sum(dim=0)
        edge = (labels.to(torch.int16).diff(dim=dim) != 0).float()
        total += (edge * gradient).sum(dim=(1, 2))
        number += edge.sum(dim=(1, 2))
        mean += gradient.mean().item() / 2
    return total / number.clamp(min=1) / max(mean, 1e-6)


def _relative_cut(cells: torch.Tensor, affinity: torch.Tensor) -> torch.Tensor:
    height, width = cells.shape[1:]
    flat, edges = cells.flatten(1), affinity.flatten(1)
    cut, number, total, num_pairs = torch.zeros(len(flat)), torch.zeros(len(flat)), 0.0, 0
    radius = {34: 5, 152: 10}[len(affinity)]
    for k, shift, mask in grid_pairs(height, width, radius):
        inside = torch.from_numpy(np.flatnonzero(np.broadcast_to(mask, height * width - shift)))
        weights = edges[k, inside]
        across = (flat[:, inside] != flat[:, inside + shift]).float()
        cut += across @ weights
        number += across.sum(dim=1)
        total += weights.sum().item()
        num_pairs += len(inside)
    return (cut / number.clamp(min=1)) / (total / max(1, num_pairs))


def _agreement(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    objects = (a > 0) | (b > 0)
    return ((a == b) & objects).sum(dim=(-2, -1)).add(1) / objects.sum(dim=(-2, -1)).add(1)


def _stability(labels: torch.Tensor, *, dim: int) -> torch.Tensor:
    moved = labels.movedim(dim, 0)
    pairs = _agreement(moved[1:], moved[:-1])
    total = torch.zeros(moved.shape[:3])
    total[1:] += pairs
    total[:-1] += pairs
    total[1:-1] /= 2
    return total.movedim(0, dim)


@dataclass
class ImageScores:
    """Of one image, as `Scored` has them of many."""

    cues: dict[str, NDArray[np.float64]]
    hits: NDArray[np.float64]
    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]


def settings_of(config: RunConfig) -> list[Setting]:
    """The grid, without the settings that a sweep adds."""
    sweep = config.sweep
    return [Setting(*values, config.radius) for values in product(sweep.alphas, sweep.betas, sweep.steps)]


def _score_rows(config: RunConfig, rows: list[Row]) -> list[ImageScores]:
    """Scores images that have labels and a true mask."""
    torch.set_num_threads(1)
    context = open_context(config)
    settings, num_classes = settings_of(config), len(context.classes) + 1
    classifier, affinity = find_networks(context)
    plan = sweep_plan(context, settings, maps=classifier, affinity=affinity, stride=STRIDE, choice="given")
    cams, stage = compute_cams(context, classifier), plan.stages[-1]
    assert isinstance(cams, ComputeCams)
    assert isinstance(stage, ScoreSettings)
    for each in (cams, stage):
        each.setup("cpu")
    results = []
    for row in read_images(context, rows):
        plain, mirrored = (_one_pass(cams, row, mirror=mirror) for mirror in (False, True))
        cues, counts = compute_cues(stage, row | cams.process(row), plain, mirrored)
        hits, predicted = (np.zeros((len(settings), num_classes)) for _ in range(2))
        labels = [0, *row["class_ids"]]
        predicted[:, labels], hits[:, labels] = np.moveaxis(counts.table(), -1, 0)
        truth = np.zeros(num_classes)
        truth[counts.truth_ids] = counts.truth_pixels
        found = {name: values.numpy() for name, values in cues.items()}
        results.append(ImageScores(found, hits, predicted, truth))
    return results


@torch.inference_mode()
def _one_pass(cams: ComputeCams, row: Row, *, mirror: bool) -> torch.Tensor:
    """Maps of an image, or of its mirror image and mirrored back, in one pass at its own size."""

    def network(x: torch.Tensor) -> torch.Tensor:
        with autocast(cams.device, cams.precision):
            maps: torch.Tensor = cams.network.cam(x)
        return maps

    (passes,) = run_passes(
        network,
        [np.ascontiguousarray(row["pixels"][:, ::-1]) if mirror else row["pixels"]],
        preprocessing=cams.network.preprocessing,
        device=cams.device,
        scales=(1.0,),
        mirror=False,
        pixels_per_pass=None,
    )
    channels = [class_id - 1 for class_id in row["class_ids"]]
    wanted = [one._replace(maps=one.maps[channels]) for one in passes]
    height, width = row["pixels"].shape[:2]
    merged = merge_cams(wanted, image_size=(height, width), stride=GRID_STRIDE, out_stride=cams.cams.out_stride)
    maps = normalize_cams(merged)
    return maps.flip(-1) if mirror else maps


def score_split(config: RunConfig, split: str, *, limit: int | None) -> Scored:
    """Scores the images of a split, in the order of their ids."""
    found = collect(open_context(config).rows([split])).sort_by("image_id").to_pylist()
    rows = [row for row in found if row["mask_uri"] and row["labels"]][:limit]
    parts = [rows[start : start + 8] for start in range(0, len(rows), 8)]
    with ProcessPoolExecutor(os.cpu_count()) as processes:
        results = [result for part in processes.map(partial(_score_rows, config), parts) for result in part]
    return Scored(
        cues={name: np.stack([result.cues[name] for result in results]) for name in results[0].cues},
        hits=np.stack([result.hits for result in results]),
        predicted=np.stack([result.predicted for result in results]),
        truth=np.stack([result.truth for result in results]),
    )


def cues_table(sets: Mapping[str, Scored]) -> str:
    """Rank correlation over the settings with the true mean IoU and loss of the chosen one, of each cue and set."""
    rows = []
    for name, meaning in HIGHER_IS_BETTER.items():
        cells = []
        for scored in sets.values():
            truth, score = 100 * scored.mean_iou(), scored.score(name)
            cells.append(f"{spearmanr(score, truth)[0]:+.2f}, {truth.max() - truth[score.argmax()]:.1f}")
        rows.append((name, meaning, *cells))
    return table(("score (higher is better)", "what it says", *sets), rows)


def choices_table(sets: Mapping[str, Scored], settings: list[Setting]) -> str:
    """Mean IoU of the settings that are chosen."""
    paper = [setting[:3] for setting in settings].index((16.0, 8.0, 256))
    rows = []
    for name, scored in sets.items():
        truth, number = 100 * scored.mean_iou(), len(scored.hits)
        free = choose_by_objective(partial(scored.score, "objective"), num_images=number)
        alpha, beta, num_steps, _ = settings[free.index]
        cells = [f"{truth[free.index]:.1f} ({alpha:g}, {beta:g}, {num_steps})"]
        for labelled in NUM_LABELLED:
            found = [100 * iou for iou in _with_labelled(scored, labelled)]
            cells.append(f"{np.mean(found):.1f} ({min(found):.1f})")
        best = f"{truth.max():.1f} ({', '.join(f'{value:g}' for value in settings[truth.argmax()][:3])})"
        rows.append((name, number, best, *cells, f"{truth[paper]:.1f}", f"{np.median(truth):.1f}"))
    header = ("images", "n", "best (alpha, beta, t)", "chosen without truth")
    return table(
        (*header, *(f"with {number} true masks, mean (worst)" for number in NUM_LABELLED), "paper's", "median"), rows
    )


def _with_labelled(scored: Scored, number: int) -> Iterator[float]:
    """Mean IoU of what is chosen with the true masks of some of the images, over several draws."""
    number = min(number, len(scored.hits))
    truth, objective_of = scored.mean_iou(), scored.score("objective")
    for seed in range(NUM_DRAWS):
        part = scored.take(np.random.default_rng(seed).permutation(len(scored.hits))[:number])
        choice = choose_with_truth(objective_of, part.mean_iou, num_images=number, num_resamples=50)
        yield truth[choice.index]


def main(
    synthetic: Annotated[str, typer.Argument(help="config of a run on the synthetic dataset")],
    voc: Annotated[str, typer.Argument(help="config of a run on VOC")],
    limit: Annotated[int | None, typer.Option(min=2, help="images of each split at most")] = None,
) -> None:
    """Prints the tables of benchmarks/sweep.md."""
    print(machine(), end="\n\n")
    configs = [load_config(storage.read_bytes(uri).decode(), ["refinement.gate=off"]) for uri in (synthetic, voc)]
    train = score_split(configs[1], "train", limit=limit)
    sets = {
        "synthetic train": score_split(configs[0], "train", limit=limit),
        "VOC train, half A": train.take(slice(0, None, 2)),
        "VOC train, half B": train.take(slice(1, None, 2)),
        "VOC val": score_split(configs[1], "val", limit=limit),
    }
    settings = settings_of(configs[0])
    print("rank correlation over the settings with mIoU, mIoU lost by the setting that the score chooses\n")
    print(cues_table(sets), end="\n\n")
    print(choices_table(sets, settings))


if __name__ == "__main__":
    typer.run(main)
