"""What the fast paths change: masks of a trained run's networks against float32, one image and one pass at a time.

    python benchmarks/precision.py runs/voc/config.yaml checkpoints.classifier=… checkpoints.affinity=… --split val

The reference folds no BatchNorm, keeps torch's own memory layout and passes each scale and side alone. Masks are those
of the walk and of the refinement that the config names; "equal pixels" counts those that have the reference's class.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Annotated, Any

import numpy as np
import torch
import typer
from measure import machine, table
from numpy.typing import NDArray

from raypipe import storage
from raypipe.config import RunConfig, load_config
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.manifest import Manifest, class_ids_of, read_manifest
from raypipe.networks import Network
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.pipelines.seeds import PIXELS_PER_PASS
from raypipe.stages import networks
from raypipe.stages.base import Row, Stage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.propagate import LearnedAffinity, PropagateCams
from raypipe.stages.refine import RefineMasks

GROUP = 16
"""Rows of a call in throughput mode, as by default."""


@dataclass
class Path:
    """One way to compute the masks."""

    cams: ComputeCams
    walk: PropagateCams
    equal: dict[str, int] = field(default_factory=lambda: {"walk": 0, "refined": 0})
    confusion: dict[str, NDArray[np.int64]] = field(default_factory=dict)

    def masks(self, rows: list[Row], refine: Stage) -> list[dict[str, NDArray[np.uint8]]]:
        """Masks of the walk and of the refinement, image by image."""
        rows = refine.process_all(self.walk.process_all(self.cams.process_all(rows)))
        failed = [row for row in rows if row.get("error_reason")]
        if failed:
            raise RuntimeError(failed[0]["error_reason"])
        return [{"walk": decode_mask(r["walk_mask"] or r["mask"]), "refined": decode_mask(r["mask"])} for r in rows]


def make_path(config: RunConfig, *, precision: str, pixels_per_pass: int | None = None) -> Path:
    """The stages as the pipeline configures them, but for the precision and company of passes."""
    shared: dict[str, Any] = {"max_side": config.images.max_side, "pixels_per_pass": pixels_per_pass}
    cams = config.cams.model_dump() | {"precision": precision, "checkpoint": config.checkpoints.classifier}
    walk = config.walk.model_dump() | {
        "precision": precision,
        "checkpoint": config.checkpoints.affinity,
        "radius": config.affinity.radius,
        "cam_stride": config.cams.out_stride,
    }
    return Path(ComputeCams(**shared, **cams), PropagateCams(**shared, **walk))


def make_reference(config: RunConfig) -> Path:
    """Float32, nothing folded, no channels_last, each scale and side alone."""
    fold, networks.fold_batchnorm = networks.fold_batchnorm, lambda module: None  # noqa: ARG005 - takes what the other takes
    path = make_path(config, precision="fp32")
    networks.fold_batchnorm = fold
    assert isinstance(path.walk.affinity, LearnedAffinity)
    for network in (path.cams.network, path.walk.affinity.network):
        _pass_one_by_one(network)
    return path


def _pass_one_by_one(network: Network) -> None:
    network.to(memory_format=torch.contiguous_format)
    forward = network.backbone.forward

    def alone(x: torch.Tensor) -> dict[str, torch.Tensor]:
        passes = [forward(image[None].contiguous()) for image in x]
        return {depth: torch.cat([maps[depth] for maps in passes]) for depth in passes[0]}

    network.backbone.forward = alone  # type: ignore[method-assign]


def read_groups(manifest: Manifest, rows: list[Row], *, max_side: int) -> Iterator[tuple[list[Row], list[Any]]]:
    """Rows as the stages take them, and their true masks."""
    for start in range(0, len(rows), GROUP):
        group, truths = [], []
        for row in rows[start : start + GROUP]:
            image = storage.read_bytes(row["image_uri"])
            height, width = decode_image(image, max_side=max_side).pixels.shape[:2]
            class_ids = class_ids_of(row["labels"], manifest.classes)
            group.append({"image": image, "class_ids": class_ids, "height": height, "width": width})
            truths.append(decode_mask(storage.read_bytes(row["mask_uri"])))
        yield group, truths


def main(
    config: Annotated[str, typer.Argument(help="config of a run on images with true masks")],
    overrides: Annotated[list[str], typer.Argument(help="checkpoints.classifier=… checkpoints.affinity=…")],
    split: Annotated[str, typer.Option(help="split to score")] = "val",
    limit: Annotated[int | None, typer.Option(min=1, help="images at most")] = None,
) -> None:
    """Prints the table of benchmarks/speed.md's section on precision."""
    print(machine(), end="\n\n")
    run = load_config(storage.read_bytes(config).decode(), overrides)
    manifest = read_manifest(run.manifest)
    rows = [row for row in manifest.select(splits=[split]).table.to_pylist() if row["mask_uri"]][:limit]
    refine = RefineMasks(max_side=run.images.max_side, **run.refinement.model_dump(exclude={"gate"}))
    paths = {
        "float32, one by one": make_reference(run),
        "float32, folded, mirror pair": make_path(run, precision="fp32"),
        "bfloat16, folded, mirror pair": make_path(run, precision="bf16"),
        "the same, throughput mode": make_path(run, precision="bf16", pixels_per_pass=PIXELS_PER_PASS),
    }
    num_classes, num_pixels = len(manifest.classes) + 1, 0
    for group, truths in read_groups(manifest, rows, max_side=run.images.max_side):
        num_pixels += sum(truth.size for truth in truths)
        reference = None
        for path in paths.values():
            masks = path.masks(group, refine)
            reference = reference or masks
            for mask, expected, truth in zip(masks, reference, truths, strict=True):
                for stage in path.equal:
                    path.equal[stage] += int((mask[stage] == expected[stage]).sum())
                    matrix = confusion_matrix(truth, mask[stage], num_classes=num_classes)
                    path.confusion[stage] = path.confusion.get(stage, 0) + matrix
    print(f"{len(rows)} images of {split}; refinement: {run.refinement.method}\n")
    lines = []
    for name, path in paths.items():
        cells: list[object] = [name]
        for stage in ("walk", "refined"):
            cells += [f"{100 * mean_iou(path.confusion[stage]):.2f}", f"{100 * path.equal[stage] / num_pixels:.2f} %"]
        lines.append(cells)
    print(table(("path", "walk, mIoU", "equal pixels", "refined, mIoU", "equal pixels"), lines))


if __name__ == "__main__":
    typer.run(main)
