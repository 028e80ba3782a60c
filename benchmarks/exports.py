"""Exports: are they read back identically?

    python benchmarks/exports.py ../shared/voc

The true masks of VOC's val split are exported in every format and read back by another library.
"""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from matplotlib.path import Path as Outline
from measure import machine, table
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage, uri
from raypipe.cluster.connect import connect
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.names import file_stem
from raypipe.formats.base import NO_SPLIT, Options
from raypipe.formats.voc.read import read_voc
from raypipe.imports.finish import finish
from raypipe.pipelines.context import Context
from raypipe.pipelines.exports.datasets import run_export
from raypipe.schema import IGNORE

Mask = NDArray[np.uint8]
Masks = Iterator[tuple[str, Mask]]
"""Ids and what was read back."""

app = typer.Typer(no_args_is_help=True)


def read_coco(out: Path, manifest: Manifest) -> Masks:  # noqa: ARG001
    """By pycocotools."""
    from pycocotools.coco import COCO

    for path in (out / "annotations").iterdir():
        coco = COCO(str(path))
        for image in coco.loadImgs(coco.getImgIds()):
            mask = np.zeros((image["height"], image["width"]), np.uint8)
            for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
                value = IGNORE if annotation["iscrowd"] else annotation["category_id"]
                mask[coco.annToMask(annotation) == 1] = value
            yield image["raypipe_id"], mask


def read_pngs(folder: str) -> Callable[[Path, Manifest], Masks]:
    """By Pillow."""

    def read(out: Path, manifest: Manifest) -> Masks:
        for row in manifest.table.to_pylist():
            split = row["split"] or NO_SPLIT
            with Image.open(out / folder.format(split) / f"{file_stem(row['image_id'])}.png") as image:
                yield row["image_id"], np.array(image)

    return read


Fill = Callable[[NDArray[np.float64], tuple[int, ...]], NDArray[np.bool_]]
"""The pixels (H, W) of a polygon of shares (N, 2)."""


def fill_by_middles(shares: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """By matplotlib: the pixels whose middles are in the polygon by the even-odd rule."""
    corners = shares * (shape[1], shape[0])
    left, top = np.floor(corners.min(axis=0)).astype(int)
    right, bottom = np.ceil(corners.max(axis=0)).astype(int)
    rows, columns = np.mgrid[top:bottom, left:right]
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    region = np.zeros(shape, bool)
    region[top:bottom, left:right] = Outline(corners).contains_points(middles).reshape(rows.shape)
    return region


def fill_as_ultralytics(shares: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """As ultralytics' `polygon2mask`: 32-bit shares, cut off to whole pixels, and OpenCV's `fillPoly`."""
    import cv2

    region = np.zeros(shape, np.uint8)
    corners = shares.astype(np.float32) * np.array([shape[1], shape[0]], np.float32)
    cv2.fillPoly(region, [corners.astype(np.int32)], color=1)
    return region == 1


def read_yolo(fill: Fill) -> Callable[[Path, Manifest], Masks]:
    """Lines filled by a function. Sizes are those of the truth."""

    def read(out: Path, manifest: Manifest) -> Masks:
        for row in manifest.table.to_pylist():
            mask = np.zeros_like(decode_mask(storage.read_bytes(row["mask_uri"])))
            labels = out / "labels" / (row["split"] or NO_SPLIT) / f"{file_stem(row['image_id'])}.txt"
            for line in labels.read_text().splitlines():
                class_index, *shares = line.split()
                mask[fill(np.array(shares, float).reshape(-1, 2), mask.shape)] = int(class_index) + 1
            yield row["image_id"], mask

    return read


def read_hugging_face(out: Path, manifest: Manifest) -> Masks:  # noqa: ARG001
    """By Hugging Face datasets."""
    import datasets

    with tempfile.TemporaryDirectory() as cache:
        for split in datasets.load_dataset(str(out), cache_dir=cache).values():
            for row in split.remove_columns("image"):
                yield row["image_id"], np.array(row["mask"])


def read_label_studio(out: Path, manifest: Manifest) -> Masks:
    """By the decoder of Label Studio's own SDK (`pip install label-studio-sdk`)."""
    from label_studio_sdk.converter.brush import decode_rle

    values = {name: index for index, name in enumerate(manifest.classes, start=1)} | {"ignore": IGNORE}
    sizes = {row["image_id"]: row["mask_uri"] for row in manifest.table.to_pylist()}
    for path in sorted(out.glob("tasks-*.json")):
        for task in json.loads(path.read_text()):
            image_id = task["data"]["image_id"]
            mask = np.zeros_like(decode_mask(storage.read_bytes(sizes[image_id])))
            for result in task["predictions"][0]["result"]:
                alpha = decode_rle(result["value"]["rle"]).reshape(*mask.shape, 4)[..., 3]
                mask[alpha == 255] = values[result["value"]["brushlabels"][0]]
            yield image_id, mask


READERS: dict[str, tuple[str, Callable[[Path, Manifest], Masks]]] = {
    "coco": ("pycocotools", read_coco),
    "coco --no-instances": ("pycocotools", read_coco),
    "voc": ("Pillow", read_pngs("SegmentationClass")),
    "yolo": ("OpenCV, as ultralytics", read_yolo(fill_as_ultralytics)),
    "yolo (middles)": ("matplotlib", read_yolo(fill_by_middles)),
    "yolo --tolerance 0.5": ("OpenCV, as ultralytics", read_yolo(fill_as_ultralytics)),
    "yolo --tolerance 1": ("OpenCV, as ultralytics", read_yolo(fill_as_ultralytics)),
    "mmseg": ("Pillow", read_pngs("ann_dir/{}")),
    "huggingface": ("datasets", read_hugging_face),
    "labelstudio": ("label-studio-sdk", read_label_studio),
    "fiftyone": ("Pillow", read_pngs("{}/labels")),
}
"""Format and options of `raypipe export`, the library that reads it back, and how."""

OPTIONS = {
    "coco --no-instances": Options(instances=False),
    "yolo --tolerance 0.5": Options(tolerance=0.5),
    "yolo --tolerance 1": Options(tolerance=1),
}
"""What these options are; the others' are the defaults."""


def make_context(manifest: Manifest, *overrides: str) -> Context:
    """A context for exports alone."""
    return Context(load_config("", ["manifest=unused", "out=unused", "cluster.cpu_actors=1", *overrides]), manifest)


def compare(found: Mask, truth: Mask) -> tuple[bool, int, int]:
    """Whether a mask is the same; intersection and union of what is no background."""
    return (
        np.array_equal(found, truth),
        int(((found == truth) & (truth > 0)).sum()),
        int(((found > 0) | (truth > 0)).sum()),
    )


@app.command()
def voc(
    root: Annotated[str, typer.Argument(help="folder in VOC's layout")],
    only: Annotated[list[str] | None, typer.Option(help="rows of the table; all by default")] = None,
) -> None:
    """Prints the table of benchmarks/exports.md on reading back."""
    manifest = finish(read_voc(uri.absolute(root), lists=["val"], labels="image_labels.csv")).manifest
    truth = {row["image_id"]: decode_mask(storage.read_bytes(row["mask_uri"])) for row in manifest.table.to_pylist()}
    print(machine(), end="\n\n")
    rows = []
    context = make_context(manifest)
    connect(context.config.cluster)
    for command in only or READERS:
        library, read = READERS[command]
        name = command.split()[0]
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            run_export(context, name, folder, masks=None, options=OPTIONS.get(command, Options()))
            seconds = time.monotonic() - started
            size = sum(path.stat().st_size for path in Path(folder).rglob("*") if "_raypipe" not in path.parts)
            same, intersection, union, number = 0, 0, 0, 0
            for image_id, found in read(Path(folder), manifest):
                expected = truth[image_id]
                if name == "yolo":  # which knows no ignored pixels
                    expected = np.where(expected == IGNORE, 0, expected).astype(np.uint8)
                counts = compare(found, expected)
                same, intersection, union = same + counts[0], intersection + counts[1], union + counts[2]
                number += 1
        rows.append(
            (
                command,
                library,
                f"{same} of {number}",
                f"{intersection / union:.4f}",
                f"{size / 2**20:.1f}",
                f"{seconds:.0f}",
            )
        )
        print(rows[-1])
    print("\n" + table(("export", "read back by", "identical masks", "IoU", "MiB", "seconds"), rows))


if __name__ == "__main__":
    app()
