"""Walks along affinities that nobody trained, from maps that nobody trained: which are worth taking.

    OMP_NUM_THREADS=1 python benchmarks/frozen_affinity.py VOC --weights FILE [--num-images 48]

VOC is a folder in VOC's layout, with `image_labels.csv`. Maps are those of a ridge regression of the labels on the
backbone's pooled features, all of them frozen, learned from the whole split. Images are evenly spaced in it. The mIoU
of an affinity is that of its best setting of alpha, beta and t on these same images, cells of the grid as they are. A
judge is right on a setting where it rises by the walk and the mIoU does, too, or where both don't. "Order" is
Spearman's correlation of predicted and true IoU over the images, at the setting that the objective chooses.
"""

import csv
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from measure import machine, table
from scipy.stats import spearmanr
from torch import Tensor

from raypipe import storage
from raypipe.data.images import decode_image, decode_mask
from raypipe.formats.voc.read import VOC_CLASSES
from raypipe.networks import Network, build_classifier, load_weights, network_input
from raypipe.networks.preprocessing import PREPROCESSINGS
from raypipe.ops.affinity import rgb_affinity
from raypipe.ops.cam import normalize_cams, stack_background
from raypipe.ops.cosine_affinity import cosine_affinity
from raypipe.ops.floods import covered_border
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.ops.predicted_iou import predicted_iou
from raypipe.ops.random_walk import propagate_at
from raypipe.ops.separation import objective, separation
from raypipe.stages.cells import cell_colours

ALPHAS, BETAS, STEPS = (2.0, 4.0, 8.0, 16.0), (2.0, 4.0, 8.0, 16.0), (0, 8, 32, 128)
RADIUS = 5
RIDGE = 1.0


def images(root: Path, names: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """Names and pixels."""
    for name in names:
        yield name, decode_image((root / "JPEGImages" / f"{name}.jpg").read_bytes(), max_side=512).pixels


def weights_of(pooled: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ridge regression of labels on standardised features: weights (K, C), and the features' mean and deviation."""
    mean, std = pooled.mean(0), pooled.std(0).clamp(min=1e-6)
    x, y = (pooled - mean) / std, labels - labels.mean(0)
    gram = x.T @ x + RIDGE * len(x) * torch.eye(x.shape[1])
    return torch.linalg.solve(gram, x.T @ y).T, mean, std


def scored(labels: Tensor, truth: np.ndarray, class_ids: list[int]) -> np.ndarray:
    """Confusion of a labelling of the grid's cells, each as large as its pixels."""
    ids = torch.tensor([0, *class_ids])[labels.long()].to(torch.uint8)
    full = ids.repeat_interleave(8, 0).repeat_interleave(8, 1)[: truth.shape[0], : truth.shape[1]]
    return confusion_matrix(truth, full.numpy(), num_classes=len(VOC_CLASSES) + 1)


@dataclass
class Walked:
    """What a setting of the walk gives: the confusion of all images, and a row of numbers an image."""

    confusion: np.ndarray = field(default_factory=lambda: np.zeros((len(VOC_CLASSES) + 1,) * 2, np.int64))
    of_images: list[tuple[float, float, float, float]] = field(default_factory=list)
    """Objective, colours' separation, predicted and true IoU."""

    @property
    def mean_iou(self) -> float:
        """In percent."""
        return 100 * mean_iou(self.confusion)

    def judged(self, index: int) -> float:
        """Mean over the images of one of their numbers."""
        return float(np.mean([numbers[index] for numbers in self.of_images]))


Setting = tuple[float, float, int]


def maps_of(network: Network, pixels: np.ndarray) -> dict[str, Tensor]:
    """Features of each depth."""
    x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
    return {name: found[0] for name, found in network.backbone(x).items()}


def sources_of(
    network: Network, found: dict[str, Tensor], colours: Tensor
) -> dict[str, tuple[Tensor, Callable[..., Tensor]]]:
    """Features that a walk may go along, and what pairs them."""
    three = [found[depth] for depth in network.backbone.affinity_depths]
    centred = [features - features.mean((-2, -1), keepdim=True) for features in three]
    return {
        "colours": (colours, rgb_affinity),
        **{depth: (features, cosine_affinity) for depth, features in found.items()},
        "three depths": (torch.cat([F.normalize(each, dim=0) for each in three]), cosine_affinity),
        "three depths, centred": (torch.cat([F.normalize(each, dim=0) for each in centred]), cosine_affinity),
    }


def walk(
    cam: Tensor, affinity: Tensor, cells: tuple[Tensor, Tensor], truth: np.ndarray, class_ids: list[int]
) -> Iterator[tuple[Setting, np.ndarray, tuple[float, float, float, float]]]:
    """Each setting, the confusion of its masks, and the image's numbers as of `Walked`."""
    num = len(class_ids)
    starts = torch.cat([cam, *(stack_background(cam, alpha=alpha)[:1] for alpha in ALPHAS)])
    for beta in BETAS:
        walked = propagate_at(starts, affinity, beta=beta, steps=STEPS)
        for (index, alpha), (steps, maps) in product(enumerate(ALPHAS), zip(STEPS, walked, strict=True)):
            scores = torch.cat([maps[num + index, None], maps[:num]])
            labels = scores.argmax(0, keepdim=True).to(torch.uint8)
            own, of_colours = (separation(features, labels, num_labels=num + 1)[0] for features in cells)
            best = (scores / scores.sum(0).clamp(min=1e-12)).topk(2, dim=0).values
            cues = {"separation": float(own), "border": float(covered_border(labels)[0])}
            predicted = predicted_iou(margin=float((best[0] - best[1]).mean()), **cues, num_classes=num)
            confusion = scored(labels[0], truth, class_ids)
            numbers = float(objective(own, of_colours)), float(of_colours), predicted, mean_iou(confusion)
            yield (alpha, beta, steps), confusion, numbers


def row_of(source: str, found: dict[Setting, Walked], seconds: float) -> tuple[object, ...]:
    """A line of the table."""
    best = max(found, key=lambda setting: found[setting].mean_iou)
    chosen = max(found, key=lambda setting: found[setting].judged(0))
    before = {setting: (*setting[:2], 0) for setting in found if setting[2] > 0}
    helps = {setting: found[setting].mean_iou > found[start].mean_iou for setting, start in before.items()}
    right = [
        np.mean([(found[each].judged(index) > found[before[each]].judged(index)) == helps[each] for each in before])
        for index in (0, 1)
    ]
    _, _, predicted, true = zip(*found[chosen].of_images, strict=True)
    return (
        source,
        f"{max(found[start].mean_iou for start in before.values()):.1f}",
        f"{found[best].mean_iou:.1f}",
        f"{best[0]:g}, {best[1]:g}, {best[2]}",
        f"{found[chosen].mean_iou:.1f}",
        *(f"{100 * share:.0f} %" for share in right),
        f"{sum(helps.values())} of {len(helps)}",
        f"{spearmanr(predicted, true).statistic:.2f}",
        f"{1000 * seconds / len(true):.0f} ms",
    )


@torch.inference_mode()
def main(
    root: Annotated[Path, typer.Argument(help="folder in VOC's layout")],
    *,
    weights: Annotated[str, typer.Option(help="of the backbone")],
    backbone: str = "mobilenet_v2",
    preprocessing: str = "tensorflow",
    split: str = "train",
    num_images: Annotated[int, typer.Option(min=2)] = 48,
) -> None:
    """Prints a table: one line an affinity."""
    network = build_classifier(backbone, num_classes=len(VOC_CLASSES)).eval()
    load_weights(network, weights, read=storage.read_bytes)
    network.preprocessing = PREPROCESSINGS[preprocessing]
    with (root / "image_labels.csv").open(newline="") as file:
        of_images = {row["image_id"]: row["labels"].split("|") for row in csv.DictReader(file)}
    names = (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
    started = time.monotonic()
    last = network.backbone.last_depth
    pooled = torch.stack([maps_of(network, pixels)[last].mean((-2, -1)) for _, pixels in images(root, names)])
    labels = torch.tensor([[float(each in of_images[name]) for each in VOC_CLASSES] for name in names])
    probe, mean, std = weights_of(pooled, labels)

    drawn = [names[index] for index in np.linspace(0, len(names) - 1, num_images).round().astype(int)]
    walked: dict[str, dict[Setting, Walked]] = {}
    seconds: dict[str, float] = {}
    for name, pixels in images(root, drawn):
        truth = decode_mask((root / "SegmentationClass" / f"{name}.png").read_bytes())
        class_ids = [VOC_CLASSES.index(each) + 1 for each in of_images[name]]
        found, colours = maps_of(network, pixels), cell_colours(pixels)
        rows = probe[[class_id - 1 for class_id in class_ids]]
        standardised = (found[last] - mean[:, None, None]) / std[:, None, None]
        cam = normalize_cams(torch.einsum("kc,chw->khw", rows, standardised).relu())
        for source, (features, pair) in sources_of(network, found, colours).items():
            began = time.perf_counter()
            affinity = pair(features, radius=RADIUS)
            seconds[source] = seconds.get(source, 0) + time.perf_counter() - began
            of_source = walked.setdefault(source, {})
            for setting, confusion, numbers in walk(cam, affinity, (features, colours), truth, class_ids):
                result = of_source.setdefault(setting, Walked())
                result.confusion += confusion
                result.of_images.append(numbers)
    print(f"n = {num_images} of {split}; {machine()}; {time.monotonic() - started:.0f} s\n")
    header = (
        *("affinity", "no walk", "best walk", "alpha, beta, t", "walk by the objective", "objective right"),
        *("colours' separation right", "walks that help", "order", "pairs of an image"),
    )
    print(table(header, [row_of(source, found, seconds[source]) for source, found in walked.items()]))


if __name__ == "__main__":
    typer.run(main)
