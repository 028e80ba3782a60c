"""Seconds of the parts that compute, in the checkout that PYTHONPATH names; `trees.py parts` runs two in turns.

    PYTHONPATH=. python benchmarks/parts.py --runs 5

It prints a JSON object of seconds by part. What the checkouts differ in is looked up: the module of the crops, and
weights that are cast once.
"""

import importlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer
from PIL import Image

from raypipe.networks import build_affinity_net, build_classifier
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.precision import autocast
from raypipe.ops.affinity import pairwise_affinity
from raypipe.ops.pamr import pamr
from raypipe.ops.random_walk import propagate
from raypipe.training.tasks import ClassifierTask

CPU = torch.device("cpu")
SIZE = (376, 504)
GRID = (47, 63)
CROPS = 8
"""Crops of one measurement."""
JITTER = (0.3, 0.3, 0.3, 0.1)


def parts(folder: Path) -> Iterator[tuple[str, Callable[[], object]]]:
    """Names and functions, ready to be timed."""
    rng = torch.Generator().manual_seed(0)
    cam = torch.rand(3, *GRID, generator=rng)
    affinity = pairwise_affinity(torch.rand(32, *GRID, generator=rng))
    yield "walk, 47x63 cells, 3 maps, t = 256", lambda: propagate(cam, affinity, beta=8, num_steps=256, tol=1e-5)
    image, maps = torch.rand(1, 3, *SIZE, generator=rng), torch.rand(1, 3, *SIZE, generator=rng)
    yield "PAMR, 376x504, 3 maps", lambda: pamr(image, maps)
    x = torch.rand(2, 3, *SIZE, generator=rng).contiguous(memory_format=torch.channels_last)
    for backbone in ("mobilenet_v2", "resnet50"):
        classifier, affinity_net = (
            ready(build_classifier(backbone, num_classes=20)),
            ready(build_affinity_net(backbone)),
        )
        yield f"CAM, {backbone}, image and mirror", lambda cam=classifier.cam: infer(cam, x)  # type: ignore[misc]
        yield f"affinities, {backbone}", lambda net=affinity_net: pairwise_affinity(infer(net, x[:1])[0])  # type: ignore[misc]
    yield "training step, classifier, mobilenet_v2, 4 crops of 224", training_step(rng)
    for name, options in (("", {}), (", colours left to the card", {"recolours": False})):
        stage, rows = crop_stage(folder, **options)
        if stage is not None:
            yield f"{CROPS} crops of 448{name}", partial(make_crops, stage, rows)


def ready(network: Any) -> Any:
    """Folds and casts as the stages do."""
    network.eval()
    fold_batchnorm(network)
    precision = importlib.import_module("raypipe.networks.precision")
    if hasattr(precision, "cast_weights"):
        kept = [network.backbone.get_submodule(name) for name in network.backbone.float32_weights]
        precision.cast_weights(network, CPU, "auto", kept=kept)
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def infer(network: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """A pass in the hardware's precision."""
    with autocast(CPU, "auto"):
        return network(x).float()


def affinities(network: Any, x: torch.Tensor) -> torch.Tensor:
    """Those of one image's cells."""
    return pairwise_affinity(infer(network, x)[0])


def make_crops(stage: Any, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Crops one by one."""
    return [stage.process(row) for row in rows]


def training_step(rng: torch.Generator) -> Callable[[], object]:
    """Forward, loss and backward; the optimiser apart."""
    task = ClassifierTask(backbone="mobilenet_v2", weights=None, preprocessing=None, num_classes=20, output_stride=8)
    network = task.build().train().to(memory_format=torch.channels_last)
    crops = torch.rand(4, 3, 224, 224, generator=rng).contiguous(memory_format=torch.channels_last)
    labels = (torch.rand(4, 20, generator=rng) < 0.1).float()

    def step() -> None:
        with autocast(CPU, "auto"):
            logits = network(crops)
        torch.nn.functional.multilabel_soft_margin_loss(logits.float(), labels).backward()

    return step


def crop_stage(folder: Path, **options: Any) -> tuple[Any, list[dict[str, Any]]]:
    """The stage of the classifier's crops and rows of photographs; None where the checkout lacks an option."""
    rows = []
    for index in range(CROPS):
        path = folder / f"{index}.jpg"
        coarse = np.random.default_rng(index).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, quality=90)
        row = {"image_id": str(index), "image_uri": str(path), "labels": ["a"], "epoch": 0, "repeat": 0}
        rows.append(row)
    try:
        module = importlib.import_module("raypipe.stages.crops")
    except ModuleNotFoundError:
        module = importlib.import_module("raypipe.stages.augment")
    try:
        stage = module.LoadClassifierCrops(
            classes=("a",), long_side=(256, 512), crop_size=448, fill=(0, 0, 0), jitter=JITTER, seed=0, max_side=1024,
            **options,
        )  # fmt: skip
    except TypeError:
        return None, rows
    return stage, rows


def main(runs: int = 5, threads: int = 2) -> None:
    """Times each part, after one run that isn't counted."""
    torch.set_num_threads(threads)
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, part in parts(Path(folder)):
            part()
            for _ in range(runs):
                started = time.perf_counter()
                part()
                found.setdefault(name, []).append(time.perf_counter() - started)
    print(json.dumps(found))


if __name__ == "__main__":
    typer.run(main)
