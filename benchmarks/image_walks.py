"""One walk for all images against each image's own, shorter ones or not: how good the masks are, what predicts that.

    OMP_NUM_THREADS=1 python benchmarks/image_walks.py synthetic/config.yaml voc/config.yaml

Each config is that of a finished run with seeds, whose networks are given as `checkpoints` or found under its `out`.
Images are those of split train, or all where there is none, that have a label and a true mask. The walks are the
stream's own (`GateWalk`), at the config's setting, whatever it lets an image choose among; where the config refines
masks, they are scored once more behind that. "Worst tenth" is the mean IoU of each way's own worst tenth of the images.
Intervals are those of 1,000 bootstraps of the images.

The predicted IoU is fitted to each image's own walk as the config lets it choose, on all images of the first config and
every second one of the second's, by `image_id`, and reported on the others, which choose nothing.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from measure import machine, table
from numpy.typing import NDArray
from runs import find_networks, read_images
from scipy.stats import spearmanr

from raypipe import storage
from raypipe.config import RunConfig, load_config
from raypipe.data.truth import as_shown, read_truth
from raypipe.ops.metrics import mean_iou_of_counts
from raypipe.ops.predicted_iou import FREE_BORDER, predicted_iou
from raypipe.ops.walk_choice import WalkChoice, alphas_around, steps_around
from raypipe.pipelines.context import open_context
from raypipe.pipelines.seeds import find_seeds
from raypipe.pipelines.steps import gate_walk, refine_masks, refining
from raypipe.schema import SEEDS, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.judge import GateWalk
from raypipe.stages.walked import compared, encode_grid, mask_cues
from raypipe.streams.collect import collect, outputs_of

WAYS: dict[str, WalkChoice] = {"one walk for all": "given", "own, none shorter": "longer", "own, any": "any"}
NUM_DRAWS = 1000
LARGE = (0.6, 0.8)
"""Shares of the image that the truth's objects cover."""


@dataclass
class Masks:
    """Scores of N images' masks, made in one way."""

    hits: NDArray[np.float64]
    """(N, C), as `predicted` and `truth`."""
    predicted: NDArray[np.float64]
    truth: NDArray[np.float64]

    def take(self, index: NDArray[np.int64]) -> "Masks":
        """Some of the images."""
        return Masks(self.hits[index], self.predicted[index], self.truth[index])

    @property
    def mean_iou(self) -> float:
        """In percent, over all pixels."""
        return 100 * float(mean_iou_of_counts(*(each.sum(axis=0) for each in (self.hits, self.predicted, self.truth))))

    @property
    def image_iou(self) -> NDArray[np.float64]:
        """Mean IoU of each image, in percent."""
        return 100 * np.array(list(map(mean_iou_of_counts, self.hits, self.predicted, self.truth)))

    @property
    def worst_tenth(self) -> float:
        """Mean IoU of the worst tenth of the images, in percent."""
        return float(np.sort(self.image_iou)[: max(1, len(self.hits) // 10)].mean())

    @property
    def objects(self) -> NDArray[np.float64]:
        """Share of each image that its truth's objects cover."""
        return 1 - self.truth[:, 0] / self.truth.sum(axis=1)


@dataclass
class Scored:
    """Images of a run, in the order of their ids."""

    masks: dict[tuple[str, str], Masks]
    """By what is scored (walk, or what refines its masks) and way."""
    cues: dict[str, NDArray[np.float64]]
    """(N, 4) by way, of the walk that an image takes: margin, separation, share of the border, number of labels."""
    others: dict[str, int]
    """By way, images whose own walk is another than the run's."""
    own: str
    """The config's way."""


def counts(mask: NDArray[np.uint8], truth: NDArray[np.uint8], num_classes: int) -> list[NDArray[np.int64]]:
    """Pixels (C,) of each class that are right, in the mask, and in the truth, where that is known."""
    known = truth != 255
    given, true = mask[known], truth[known]
    return [np.bincount(values, minlength=num_classes) for values in (true[given == true], given, true)]


def score(config: RunConfig, *, limit: int | None) -> Scored:
    """Makes and scores both ways' masks."""
    context = open_context(config)
    classifier, affinity = find_networks(context)
    seeds = find_seeds(context, maps=classifier)
    if seeds is None:
        raise ValueError(f"{config.out} has no seeds of this config; `raypipe seeds CONFIG` makes them")
    gate = gate_walk(context, affinity, maps=classifier)
    assert isinstance(gate, GateWalk)
    refined = {"walk": refining(context, "none")}
    if config.refinement.method != "none":
        refined[config.refinement.method] = refine_masks(context)
    own = next(way for way in WAYS if WAYS[way] == gate.choice)
    for stage in (stage for stages in refined.values() for stage in stages):
        stage.setup("cpu")
    gate = replace(gate, choice="any")
    gate.setup("cpu")
    every = context.rows(["train"] if "train" in context.manifest.splits else None)
    rows = [row for row in collect(every).sort_by("image_id").to_pylist() if row["mask_uri"] and row["labels"]][:limit]
    maps = outputs_of(seeds, every, columns(SEEDS, "image_id", "class_ids", "cam", "cam_height", "cam_width"))
    of_image = {row["image_id"]: row for row in maps.to_pylist()}
    found: dict[tuple[str, str], list[list[NDArray[np.int64]]]] = {(name, way): [] for name in refined for way in WAYS}
    cues: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    others, num_classes = dict.fromkeys(WAYS, 0), len(context.classes) + 1
    for row in (
        row | of_image[row["image_id"]]
        for start in range(0, len(rows), 8)
        for row in read_images(context, rows[start : start + 8])
    ):
        truth, _ = read_truth(row["mask_uri"], num_classes=num_classes)
        shown = as_shown(
            truth, size=(row["original_height"], row["original_width"]), image=lambda row=row: row["image"]
        )
        image = gate.prepare(row)
        (walked,) = gate.walk.propagate([image], steps=steps_around(config.walk.num_steps, "any"))
        (objectives,) = compared([image], [walked])
        assert walked is not None
        assert objectives is not None
        for way, choice in WAYS.items():
            # Longer walks are the first of all that there are.
            steps, alphas = steps_around(config.walk.num_steps, choice), alphas_around(config.walk.alpha, choice)
            among = objectives[: len(steps), : len(alphas)]
            place = divmod(int(among.argmax()), len(alphas))
            others[way] += place != (0, 0)
            scores = walked.taken(*place).scores
            for name, stages in refined.items():
                found[name, way].append(counts(made(stages, row | encode_grid(scores.numpy())), shown, num_classes))
            cues[way].append([*map(float, mask_cues(scores, walked.cells.features)), len(row["class_ids"])])
    arrays = {key: Masks(*np.array(of_images, np.float64).swapaxes(0, 1)) for key, of_images in found.items()}
    return Scored(arrays, {way: np.array(values) for way, values in cues.items()}, others, own)


def made(stages: Sequence[Stage], row: Row) -> NDArray[np.uint8]:
    """The mask (H, W) at the working size."""
    for stage in stages:
        row = row | stage.process(row)
    mask: NDArray[np.uint8] = row["labels_array"]
    return mask


def draws(number: int) -> Iterator[NDArray[np.int64]]:
    """Indices of bootstraps."""
    rng = np.random.default_rng(0)
    for _ in range(NUM_DRAWS):
        yield rng.integers(0, number, number)


def interval(number: int, value: Callable[[NDArray[np.int64]], float]) -> str:
    """95 % of a value's bootstraps."""
    low, high = np.percentile([value(index) for index in draws(number)], [2.5, 97.5])
    return f"{low:.2f} to {high:.2f}"


def way_row(name: str, way: str, masks: Masks) -> tuple[str, ...]:
    """How good one way's masks are."""
    large = [masks.objects > share for share in LARGE]
    of_large = [f"{masks.image_iou[those].mean():.1f}" if those.any() else "" for those in large]
    values = (masks.mean_iou, masks.worst_tenth, masks.image_iou.mean())
    return (name, way, *(f"{value:.1f}" for value in values), *of_large)


def difference_row(name: str, way: str, before: Masks, after: Masks) -> tuple[str, ...]:
    """How far one way is ahead of another."""
    large = [before.objects > share for share in LARGE]
    gains = after.image_iou - before.image_iou

    def gain(what: str) -> str:
        return interval(len(gains), lambda index: getattr(after.take(index), what) - getattr(before.take(index), what))

    return (
        *(name, way, gain("mean_iou"), gain("worst_tenth")),
        interval(len(gains), lambda index: gains[index].mean()),
        *(
            f"{gains[those].mean():+.1f}, worse in {(gains[those] < 0).sum()} of {those.sum()}" if those.any() else ""
            for those in large
        ),
    )


def ways_table(scored: Scored) -> str:
    """The rows of all that was scored."""
    names = dict.fromkeys(name for name, _ in scored.masks)
    one, longer, shorter = WAYS
    rows = []
    for name in names:
        masks = {way: scored.masks[name, way] for way in WAYS}
        rows += [way_row(name, way, masks[way]) for way in WAYS]
        for before, after in ((one, longer), (one, shorter), (shorter, longer)):
            rows.append(difference_row(name, f"{after} − {before}", masks[before], masks[after]))
    large = (f"truth covers over {share:.0%}" for share in LARGE)
    return table(("masks of", "way", "mIoU", "worst tenth", "mean over images", *large), rows)


def design(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """What `predicted_iou` is linear in."""
    margin, parted, border, num_labels = cues.T
    return np.stack([np.ones(len(cues)), margin, parted, 1 / num_labels, np.maximum(0, border - FREE_BORDER)], axis=1)


def predictions(cues: NDArray[np.float64]) -> NDArray[np.float64]:
    """The predicted IoU as the code computes it."""
    return np.array(
        [
            predicted_iou(margin=margin, separation=parted, border=border, num_classes=int(number))
            for margin, parted, border, number in cues
        ]
    )


def predicted_table(sets: dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]], fitted_on: Sequence[str]) -> str:
    """Weights by least squares, with and without the border, and what they are good for beside the present ones.

    Args:
        sets: cues and IoU, 0..1, of each set's images.
        fitted_on: names of some.
    """
    cues, iou = (np.concatenate([sets[name][part] for name in fitted_on]) for part in (0, 1))
    weights = np.linalg.lstsq(design(cues), iou)[0]
    three = np.linalg.lstsq(design(cues)[:, :4], iou)[0]
    names = ("constant", "margin", "separation", "1 / K", "border")
    lines = [f"weights: {', '.join(f'{name} {weight:.3f}' for name, weight in zip(names, weights, strict=True))}", ""]
    rows = []
    for name, (of_set, true) in sets.items():
        present, x = predictions(of_set), design(of_set)
        for what, predicted in {
            "without the border": x[:, :4] @ three,
            "with it": x @ weights,
            "as in the code": present,
        }.items():
            rank = interval(len(true), lambda index: spearmanr(predicted[index], true[index])[0])  # noqa: B023
            errors = predicted - true
            value = f"{spearmanr(predicted, true)[0]:.2f} ({rank})"
            rows.append((name, len(true), what, value, f"{errors.mean():+.2f}", f"{abs(errors).mean():.2f}"))
    return "\n".join([*lines, table(("images", "n", "weights", "Spearman (95 %)", "bias", "mean error"), rows)])


def main(
    first: Annotated[str, typer.Argument(help="config of a run, which its folder names")],
    second: Annotated[str, typer.Argument(help="another one")],
    limit: Annotated[int | None, typer.Option(min=4, help="images of each run at most")] = None,
) -> None:
    """Prints the tables of benchmarks/sweep.md."""
    print(machine(), end="\n\n")
    sets = {}
    for uri in (first, second):
        name = Path(uri).parent.name
        config = load_config(storage.read_bytes(uri).decode())
        scored = score(config, limit=limit)
        cues, iou = scored.cues[scored.own], scored.masks["walk", scored.own].image_iou / 100
        walk = config.walk
        print(
            f"{name}: {len(iou)} images, alpha {walk.alpha:g}, beta {walk.beta:g}, {walk.num_steps} steps; "
            f"{scored.others[scored.own]} images take another walk ({scored.own})\n"
        )
        print(ways_table(scored), end="\n\n")
        for way in WAYS:
            way_iou = scored.masks["walk", way].image_iou
            print(f"Spearman of the predicted IoU, {way}: {spearmanr(predictions(scored.cues[way]), way_iou)[0]:.2f}")
        print()
        sets |= {f"{name}, half {half}": (cues[start::2], iou[start::2]) for half, start in (("A", 0), ("B", 1))}
    *fitted_on, _ = sets
    print(predicted_table(sets, fitted_on))


if __name__ == "__main__":
    typer.run(main)
