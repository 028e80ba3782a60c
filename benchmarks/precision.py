"""What the fast paths change: masks of a trained run's networks against float32, one image and one pass at a time.

    python benchmarks/precision.py runs/voc/config.yaml --split val

The config is that of a finished run, or names trained networks in `checkpoints`.
The reference folds no BatchNorm, keeps torch's own memory layout and passes each scale and side alone. Masks are those
of the walk and of the refinement that the config names; "equal pixels" counts those that have the reference's class.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measure import default_device, machine, table
from numpy.typing import NDArray
from runs import find_networks, read_images, with_values

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.networks import Network
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.steps import compute_cams, encode_masks, propagate_cams, refine_masks
from raypipe.stages import networks
from raypipe.stages.base import ROWS_PER_CHUNK, Row, Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.cells import NetworkAffinity
from raypipe.stages.propagate import PropagateCams
from raypipe.streams.collect import collect


@dataclass
class Path:
    """One way to compute the masks."""

    cams: ComputeCams
    walk: PropagateCams
    equal: dict[str, int] = field(default_factory=lambda: {"walk": 0, "refined": 0})
    confusion: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def masks(self, rows: list[Row], context: Context) -> list[dict[str, NDArray[np.uint8]]]:
        """Masks of the walk and of the refinement, image by image."""
        stages: list[Stage] = [self.cams, self.walk, *refine_masks(context), encode_masks()]
        for stage in stages:
            rows = stage.process_all(rows)
        failed = [row for row in rows if row.get("error_reason")]
        if failed:
            raise RuntimeError(failed[0]["error_reason"])
        return [{"walk": decode_mask(r["walk_mask"] or r["mask"]), "refined": decode_mask(r["mask"])} for r in rows]


def make_path(
    context: Context, found: tuple[Artifact, Artifact], *, precision: str, mode: str = "deterministic"
) -> Path:
    """The stages as the pipeline configures them, but for the precision and company of passes."""
    changed = replace(context, config=with_values(context.config, precision=precision, inference={"mode": mode}))
    cams, walk = compute_cams(changed, found[0]), propagate_cams(changed, found[1], maps=found[0])
    assert isinstance(cams, ComputeCams)
    assert isinstance(walk, PropagateCams)
    for stage in (cams, walk):
        stage.setup(default_device().type)
    return Path(cams, walk)


def make_reference(context: Context, found: tuple[Artifact, Artifact]) -> Path:
    """Float32, nothing folded, no channels_last, each scale and side alone."""
    fold, networks.fold_batchnorm = networks.fold_batchnorm, lambda module: None  # noqa: ARG005 - takes what the other takes
    path = make_path(context, found, precision="fp32")
    networks.fold_batchnorm = fold
    assert isinstance(path.walk.source, NetworkAffinity)
    for network in (path.cams.network, path.walk.source.network):
        _pass_one_by_one(network)
    return path


def _pass_one_by_one(network: Network) -> None:
    network.to(memory_format=torch.contiguous_format)
    forward = network.backbone.forward

    def alone(x: torch.Tensor) -> dict[str, torch.Tensor]:
        passes = [forward(image[None].contiguous()) for image in x]
        return {depth: torch.cat([maps[depth] for maps in passes]) for depth in passes[0]}

    network.backbone.forward = alone  # type: ignore[method-assign]


def read_groups(context: Context, rows: list[Row]) -> Iterator[tuple[list[Row], list[Any]]]:
    """Rows that go through the networks together, as in a stream, and their true masks."""
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        group = rows[start : start + ROWS_PER_CHUNK]
        truths = [decode_mask(storage.read_bytes(row["mask_uri"])) for row in group]
        yield read_images(context, group), truths


def main(
    config: Annotated[str, typer.Argument(help="config of a run on images with true masks")],
    overrides: Annotated[list[str] | None, typer.Argument(help="dotted overrides")] = None,
    split: Annotated[str, typer.Option(help="split to score")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="images at most")] = None,
) -> None:
    """Prints the table of benchmarks/speed.md's section on precision."""
    print(machine(), end="\n\n")
    context = open_context(load_config(storage.read_bytes(config).decode(), overrides or []))
    rows = [row for row in collect(context.rows([split])).to_pylist() if row["mask_uri"]][:limit]
    found = find_networks(context)
    paths = {
        "float32, one by one": make_reference(context, found),
        "float32, folded, mirror pair": make_path(context, found, precision="fp32"),
        "bfloat16, folded, mirror pair": make_path(context, found, precision="bf16"),
        "the same, throughput mode": make_path(context, found, precision="bf16", mode="throughput"),
    }
    num_classes, num_pixels = len(context.classes) + 1, 0
    for group, truths in read_groups(context, rows):
        num_pixels += sum(truth.size for truth in truths)
        reference = None
        for path in paths.values():
            masks = path.masks(group, context)
            reference = reference or masks
            for mask, expected, truth in zip(masks, reference, truths, strict=True):
                for stage in path.equal:
                    path.equal[stage] += int((mask[stage] == expected[stage]).sum())
                    matrix = confusion_matrix(truth, mask[stage], num_classes=num_classes)
                    path.confusion[stage] = path.confusion.get(stage, 0) + matrix
    print(f"{len(rows)} images of {split}; refinement: {context.config.refinement.method}\n")
    lines = []
    for name, path in paths.items():
        cells: list[object] = [name]
        for stage in ("walk", "refined"):
            cells += [f"{100 * mean_iou(path.confusion[stage]):.2f}", f"{100 * path.equal[stage] / num_pixels:.2f} %"]
        lines.append(cells)
    print(table(("path", "walk, mIoU", "equal pixels", "refined, mIoU", "equal pixels"), lines))


if __name__ == "__main__":
    typer.run(main)
