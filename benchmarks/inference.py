"""Stages of the masks against the recipe that released codes follow: fp32, one pass after another, dense matrices.

    python benchmarks/inference.py [--backbone resnet38] [--num-runs 5]

One photograph-sized synthetic image, random weights (the time doesn't depend on them), all cores for both sides. The
reference shares raypipe's networks and the decoding of the image, not its precision, layout, folding, batching, walk.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
import typer
from measure import machine, table, time_interleaved, write_random_networks
from numpy.typing import NDArray
from psa_recipe import cams_one_by_one, walk_densely
from torch import Tensor
from walk import ALPHAS, BETAS, STEPS

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.networks import Network
from raypipe.ops.cam import resize_cam, stack_background
from raypipe.ops.dense_crf import dense_crf_many
from raypipe.ops.random_walk import propagate_at
from raypipe.pipelines.context import Context
from raypipe.pipelines.steps import compute_cams, propagate_cams
from raypipe.stages.base import Row
from raypipe.stages.propagate import PropagateCams, grid_scores
from raypipe.synthetic.generate import CLASSES, draw_scene

SIZE = (376, 504)
CLASS_IDS = [1, 3]
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Setting:
    """An image, and networks with random weights as checkpoints and as plain modules."""

    pixels: NDArray[np.uint8]
    row: Row
    context: Context
    classifier: Network
    affinity_net: Network
    folder: str
    """Of the checkpoints."""


@contextmanager
def make_setting(backbone: str) -> Iterator[Setting]:
    """Builds it in a temporary folder."""
    scene = next(s for s in (draw_scene(1, i, sizes=(504, 504)) for i in range(99)) if s.pixels.shape[0] >= SIZE[0])
    pixels = np.ascontiguousarray(scene.pixels[: SIZE[0], : SIZE[1]])
    config = load_config("", ["manifest=unused", "out=unused", f"network.backbone={backbone}", "network.weights=null"])
    with tempfile.TemporaryDirectory() as folder:
        networks = write_random_networks(folder, backbone, CLASSES)
        context = Context(config, Manifest.from_rows([], CLASSES))
        yield Setting(
            pixels,
            {"pixels": pixels, "class_ids": CLASS_IDS},
            context,
            networks["classifier"],
            networks["affinity"],
            folder,
        )


def reference_cams(setting: Setting) -> Tensor:
    """The recipe's maps."""
    scales = setting.context.config.cams.scales
    return cams_one_by_one(setting.classifier, setting.pixels, CLASS_IDS, scales=scales, device=CPU)


def reference_walk(setting: Setting, cam: Tensor) -> Tensor:
    """The recipe's walk."""
    return walk_densely(setting.affinity_net, setting.pixels, cam, device=CPU)


def main(
    backbone: Annotated[str, typer.Option(help="network of both stages")] = "resnet38",
    num_runs: Annotated[int, typer.Option(min=1, help="timed calls of each")] = 5,
) -> None:
    """Prints the tables of benchmarks/speed.md's section on inference."""
    print(machine(), end="\n\n")
    with make_setting(backbone) as setting:
        # The config's defaults are the paper's: alpha 16, beta 8, t = 256.
        maps = Artifact(f"{setting.folder}/classifier", "random")
        compute = compute_cams(setting.context, maps)
        walk = propagate_cams(setting.context, Artifact(f"{setting.folder}/affinity", "random"), maps=maps)
        assert isinstance(walk, PropagateCams)
        for stage in (compute, walk):
            stage.setup("cpu")
        row = setting.row | compute.process(setting.row)
        cam = reference_cams(setting)

        reference, ours = time_interleaved(
            [lambda: reference_cams(setting), lambda: compute.process(setting.row)], num_runs=num_runs
        )
        num_passes = 2 * len(setting.context.config.cams.scales)
        rows: list[tuple[object, ...]] = [
            (f"multi-scale CAM, {num_passes} passes", reference, ours, f"{reference.median / ours.median:.1f}")
        ]

        reference, ours = time_interleaved(
            [lambda: reference_walk(setting, cam), lambda: walk.process(row)], num_runs=num_runs
        )
        rows.append(("affinity network and walk", reference, ours, f"{reference.median / ours.median:.1f}"))

        full = resize_cam(cam, size=SIZE)
        scores = [stack_background(full, alpha=alpha).numpy() for alpha in (4.0, 24.0)]
        reference, ours = time_interleaved(
            [
                lambda: [dense_crf_many(setting.pixels, [s]) for s in scores],
                lambda: dense_crf_many(setting.pixels, scores),
            ],
            num_runs=4 * num_runs,  # the difference is small
        )
        rows.append(("dense CRF at two alphas", reference, ours, f"{reference.median / ours.median:.3f}"))
        print(f"{backbone}, image of {SIZE[0]}x{SIZE[1]}\n")
        print(table(("stage", "reference", "raypipe", "times faster"), rows), end="\n\n")

        def all_settings() -> list[Tensor]:
            edges = walk.source([setting.pixels])[0].affinity(radius=5)
            grids = [grid_scores(cam, alphas=[alpha], cam_stride=4) for alpha in ALPHAS]
            maps = torch.cat([*(scores[:1] for scores in grids), grids[0][1:]])
            return [propagate_at(maps, edges, beta=beta, steps=STEPS) for beta in BETAS]

        one, grid = time_interleaved([lambda: walk.process(row), all_settings], num_runs=num_runs)
        print(
            table(
                ("affinity and walk, settings", "time", "times one setting"),
                [
                    ("one", one, 1),
                    (f"{len(ALPHAS) * len(BETAS) * len(STEPS)}", grid, f"{grid.median / one.median:.2f}"),
                ],
            )
        )


if __name__ == "__main__":
    typer.run(main)
