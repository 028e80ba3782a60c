"""Walks along affinities that nobody trained, from maps that nobody trained: which are worth taking.

    OMP_NUM_THREADS=1 python benchmarks/frozen_affinity.py VOC --weights FILE [--num-images 48]

VOC is a folder in VOC's layout, with `image_labels.csv`. Maps are those of a ridge regression of the labels on the
backbone's pooled features, all of them frozen, learned from the whole split. Images are evenly spaced in it. The mIoU
of an affinity is that of its best setting of alpha, beta and t on these same images, cells of the grid as they are. A
judge is right on a setting where it rises by the walk and the mIoU does, too, or where both don't.
"""

import csv
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import torch.nn.functional as F
import typer
from measure import machine, table
from torch import Tensor

from raypipe import storage
from raypipe.data.images import decode_image, decode_mask
from raypipe.formats.voc.read import VOC_CLASSES
from raypipe.networks import build_classifier, load_weights, network_input
from raypipe.networks.preprocessing import PREPROCESSINGS
from raypipe.ops.affinity import rgb_affinity
from raypipe.ops.cam import normalize_cams, stack_background
from raypipe.ops.cosine_affinity import cosine_affinity
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.ops.random_walk import propagate_at
from raypipe.ops.separation import objective, separation
from raypipe.stages.propagate import cell_colours

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

    def maps(pixels: np.ndarray) -> dict[str, Tensor]:
        x, _ = network_input(pixels, preprocessing=network.preprocessing, device=torch.device("cpu"))
        return {name: found[0] for name, found in network.backbone(x).items()}

    with (root / "image_labels.csv").open(newline="") as file:
        of_images = {row["image_id"]: row["labels"].split("|") for row in csv.DictReader(file)}
    names = (root / f"ImageSets/Segmentation/{split}.txt").read_text().split()
    started = time.monotonic()
    last = list(network.backbone.channels)[-1]
    pooled = torch.stack([maps(pixels)[last].mean((-2, -1)) for _, pixels in images(root, names)])
    labels = torch.tensor([[float(each in of_images[name]) for each in VOC_CLASSES] for name in names])
    probe, mean, std = weights_of(pooled, labels)
    print(f"maps learned in {time.monotonic() - started:.0f} s", flush=True)

    drawn = [names[index] for index in np.linspace(0, len(names) - 1, num_images).round().astype(int)]
    totals: dict[tuple[str, float, float, int], np.ndarray] = {}
    judged: dict[tuple[str, float, float, int], list[Tensor]] = {}
    seconds: dict[str, float] = {}
    for name, pixels in images(root, drawn):
        truth = decode_mask((root / "SegmentationClass" / f"{name}.png").read_bytes())
        class_ids = [VOC_CLASSES.index(each) + 1 for each in of_images[name]]
        found = maps(pixels)
        rows = probe[[class_id - 1 for class_id in class_ids]]
        cam = normalize_cams(
            torch.einsum("kc,chw->khw", rows, (found[last] - mean[:, None, None]) / std[:, None, None]).relu()
        )
        colours = cell_colours(pixels)
        sources: dict[str, tuple[Tensor, Callable[..., Tensor]]] = {"colours": (colours, rgb_affinity)}
        three = [found[depth] for depth in network.backbone.affinity_depths]
        centred = [features - features.mean((-2, -1), keepdim=True) for features in three]
        sources |= {depth: (features, cosine_affinity) for depth, features in found.items()}
        sources["three depths"] = (torch.cat([F.normalize(each, dim=0) for each in three]), cosine_affinity)
        sources["three depths, centred"] = (torch.cat([F.normalize(each, dim=0) for each in centred]), cosine_affinity)
        num = len(class_ids)
        starts = torch.cat([cam, *(stack_background(cam, alpha=alpha)[:1] for alpha in ALPHAS)])
        for source, (features, pair) in sources.items():
            began = time.perf_counter()
            affinity = pair(features, radius=RADIUS)
            seconds[source] = seconds.get(source, 0) + time.perf_counter() - began
            for beta in BETAS:
                walked = propagate_at(starts, affinity, beta=beta, steps=STEPS)
                labellings = torch.stack(
                    [
                        torch.cat([scores[num + index, None], scores[:num]]).argmax(0)
                        for index in range(len(ALPHAS))
                        for scores in walked
                    ]
                ).to(torch.uint8)
                parts = {
                    of: separation(cells, labellings, num_labels=num + 1)
                    for of, cells in (("own", features), ("colours", colours))
                }
                for index, (alpha, steps) in enumerate(product(ALPHAS, STEPS)):
                    key = (source, alpha, beta, steps)
                    totals[key] = totals.get(key, 0) + scored(labellings[index], truth, class_ids)
                    judgement = objective(parts["own"][index], parts["colours"][index]), parts["colours"][index]
                    judged.setdefault(key, []).append(torch.stack(judgement))
    print(f"n = {num_images} of {split}; {machine()}; {time.monotonic() - started:.0f} s\n")
    scores = {key: 100 * mean_iou(total) for key, total in totals.items()}
    judges = {key: torch.stack(found).mean(0) for key, found in judged.items()}
    rows_of_table = []
    for source in dict.fromkeys(key[0] for key in scores):
        own = {key: score for key, score in scores.items() if key[0] == source}
        best = max(own, key=lambda key: own[key])
        start = max(score for key, score in own.items() if key[3] == 0)
        right = torch.zeros(2)
        walks = [key for key in own if key[3] > 0]
        for key in walks:
            before = (*key[:3], 0)
            right += ((judges[key] > judges[before]) == (own[key] > own[before])).float()
        by_own = max(own, key=lambda key: float(judges[key][0]))
        rows_of_table.append(
            (
                source,
                f"{start:.1f}",
                f"{own[best]:.1f}",
                f"{best[1]:g}, {best[2]:g}, {best[3]}",
                f"{own[by_own]:.1f}",
                *(f"{100 * each / len(walks):.0f} %" for each in right),
                f"{sum(own[key] > own[(*key[:3], 0)] for key in walks)} of {len(walks)}",
                f"{1000 * seconds[source] / num_images:.0f} ms",
            )
        )
    header = (
        *("affinity", "no walk", "best walk", "alpha, beta, t", "walk that the objective chooses"),
        *("objective right", "colours' separation right", "walks that help", "cost of the pairs"),
    )
    print(table(header, rows_of_table))


if __name__ == "__main__":
    typer.run(main)
