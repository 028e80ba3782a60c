"""Exports: are they read back identically, and is their memory flat.

    python benchmarks/exports.py voc ../shared/voc
    python benchmarks/exports.py memory --num-rows 2000 --num-rows 10000
    python benchmarks/exports.py join

`voc` exports the true masks of VOC's val split in every format and reads them back by another library. `memory` exports
synthetic masks and measures the driver's peak, each export in a process of its own; `join` only the driver's last step,
without Ray, on as many rows as are asked for.
"""

import json
import multiprocessing
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import numpy as np
import pyarrow as pa
import typer
from matplotlib.path import Path as Outline
from measure import machine, table
from numpy.typing import NDArray
from PIL import Image

from raypipe import storage
from raypipe.config import load_config
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.importers.voc import import_voc
from raypipe.data.manifest import Manifest
from raypipe.data.names import file_stem
from raypipe.exports.base import NO_SPLIT
from raypipe.pipelines.context import Context, start_ray
from raypipe.pipelines.export import ExportMasks, make_format, read_exported, run_export
from raypipe.pipelines.sink import SHARDS, write_shard
from raypipe.schema import EXPORTS, IGNORE, MASKS

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


def read_yolo(out: Path, manifest: Manifest) -> Masks:
    """By matplotlib: the pixels whose middles are in a polygon by the even-odd rule. Sizes are those of the truth."""
    for row in manifest.table.to_pylist():
        height, width = decode_mask(storage.read_bytes(row["mask_uri"])).shape
        mask = np.zeros((height, width), np.uint8)
        labels = out / "labels" / (row["split"] or NO_SPLIT) / f"{file_stem(row['image_id'])}.txt"
        for line in labels.read_text().splitlines():
            class_index, *shares = line.split()
            corners = np.array(shares, float).reshape(-1, 2) * (width, height)
            left, top = np.floor(corners.min(axis=0)).astype(int)
            right, bottom = np.ceil(corners.max(axis=0)).astype(int)
            rows, columns = np.mgrid[top:bottom, left:right]
            middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
            inside = Outline(corners).contains_points(middles).reshape(rows.shape)
            mask[top:bottom, left:right][inside] = int(class_index) + 1
        yield row["image_id"], mask


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
    "coco export.instances=false": ("pycocotools", read_coco),
    "voc": ("Pillow", read_pngs("SegmentationClass")),
    "yolo": ("matplotlib", read_yolo),
    "yolo export.tolerance=0.5": ("matplotlib", read_yolo),
    "yolo export.tolerance=1": ("matplotlib", read_yolo),
    "mmseg": ("Pillow", read_pngs("ann_dir/{}")),
    "huggingface": ("datasets", read_hugging_face),
    "labelstudio": ("label-studio-sdk", read_label_studio),
    "fiftyone": ("Pillow", read_pngs("{}/labels")),
}
"""Format and overrides, the library that reads it back, and how."""


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
    manifest = import_voc(root, lists=["val"], labels="image_labels.csv")
    truth = {row["image_id"]: decode_mask(storage.read_bytes(row["mask_uri"])) for row in manifest.table.to_pylist()}
    print(machine(), end="\n\n")
    rows = []
    for command in only or READERS:
        library, read = READERS[command]
        name, *overrides = command.split()
        context = make_context(manifest, *overrides)
        start_ray(context.config.cluster)
        with tempfile.TemporaryDirectory() as folder:
            started = time.monotonic()
            run_export(context, name, folder, masks=None, masks_digest=None)
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


def write_masks(folder: str, num_rows: int) -> Manifest:
    """Tiny masks of 16 x 16, and their manifest."""
    rng = np.random.default_rng(0)
    pngs = [encode_png(rng.integers(0, 3, (4, 4), np.uint8).repeat(4, 0).repeat(4, 1)) for _ in range(256)]
    ids = [f"{number:07d}" for number in range(num_rows)]
    for start in range(0, num_rows, 500):
        rows = [
            {"image_id": image_id, "mask": pngs[int(image_id) % 256], "confidence": pngs[int(image_id) % 256]}
            for image_id in ids[start : start + 500]
        ]
        write_shard(folder, SHARDS, pa.Table.from_pylist(rows, schema=MASKS))
    rows = [
        {"image_id": name, "image_uri": f"s3://bucket/images/{name}.jpg", "labels": [], "split": "val"} for name in ids
    ]
    return Manifest.from_rows(rows, ["cat", "dog"])


def _memory(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


def _send_peak(name: str, num_rows: int, connection: Connection) -> None:
    with tempfile.TemporaryDirectory() as folder:
        masks = f"{folder}/masks"
        manifest = write_masks(masks, num_rows)
        context = make_context(manifest, "cluster.rows_per_shard=500", "cluster.object_store_memory=300000000")
        start_ray(context.config.cluster)
        # Loads what is loaded once.
        first = Context(context.config, Manifest(manifest.table.slice(0, 500), manifest.classes))
        run_export(first, name, f"{folder}/first", masks=masks, masks_digest="m")
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        started = time.monotonic()
        run_export(context, name, f"{folder}/out", masks=masks, masks_digest="m")
        seconds = time.monotonic() - started
        written = sum(path.stat().st_size for path in Path(folder, "out").rglob("*") if path.is_file())
        connection.send((before, _memory("VmHWM"), seconds, written / 2**20))
        shutil.rmtree(folder, ignore_errors=True)


@app.command()
def memory(
    num_rows: Annotated[list[int], typer.Option(help="rows of a manifest; repeat for several")] = [2000, 10000],  # noqa: B006 - typer's way
    formats: Annotated[list[str], typer.Option("--format")] = ["coco", "voc"],  # noqa: B006
) -> None:
    """Prints the table of benchmarks/exports.md on memory."""
    print(machine(), end="\n\n")
    rows = []
    context = multiprocessing.get_context("spawn")
    for name in formats:
        for number in num_rows:
            ours, theirs = context.Pipe()
            process = context.Process(target=_send_peak, args=(name, number, theirs))
            process.start()
            theirs.close()
            before, peak, seconds, written = ours.recv()
            process.join()
            rows.append(
                (
                    name,
                    f"{number:,}",
                    f"{before:.0f}",
                    f"{peak:.0f}",
                    f"{peak - before:.0f}",
                    f"{written:.1f}",
                    f"{seconds:.0f}",
                )
            )
            print(rows[-1])
    header = ("export", "rows", "driver before, MiB", "driver's peak, MiB", "added, MiB", "written, MiB", "seconds")
    print("\n" + table(header, rows))


def _send_join_peak(name: str, work: str, connection: Connection) -> None:
    format_ = make_format(name, make_context(Manifest.from_rows([], ["cat", "dog"])))
    shards = storage.list_files(f"{work}/shards", suffix=".parquet")
    format_.finish(lambda: read_exported(shards[:1]), f"{work}/first")  # loads what is loaded once
    before = _memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    started = time.monotonic()
    format_.finish(lambda: read_exported(shards), f"{work}/out")
    written = sum(path.stat().st_size for path in Path(work, "out").rglob("*") if path.is_file())
    connection.send((before, _memory("VmHWM"), time.monotonic() - started, written / 2**20))


@app.command()
def join(
    num_rows: Annotated[list[int], typer.Option(help="rows; repeat for several")] = [2000, 20000, 100000],  # noqa: B006
    formats: Annotated[list[str], typer.Option("--format")] = ["coco", "voc", "huggingface"],  # noqa: B006
) -> None:
    """Prints the table of benchmarks/exports.md on joining: what the driver does alone, after the workers."""
    print(machine(), end="\n\n")
    rows = []
    context = multiprocessing.get_context("spawn")
    rng = np.random.default_rng(0)
    png = encode_png(rng.integers(0, 3, (4, 4), np.uint8).repeat(4, 0).repeat(4, 1))
    for name in formats:
        format_ = make_format(name, make_context(Manifest.from_rows([], ["cat", "dog"])))
        for total in num_rows:
            with tempfile.TemporaryDirectory() as work:
                stage = ExportMasks(format_=format_, out=f"{work}/unused", min_confidence=0)
                # The same image again and again: only its number and its id differ, and drawing it takes no time.
                items = stage.process(_row(0, png))["items"]
                for start in range(0, total, 500):
                    shard = [_row(number, png) | {"items": items} for number in range(start, min(start + 500, total))]
                    write_shard(work, SHARDS, pa.Table.from_pylist(shard, schema=EXPORTS))
                ours, theirs = context.Pipe()
                process = context.Process(target=_send_join_peak, args=(name, work, theirs))
                process.start()
                theirs.close()
                before, peak, seconds, written = ours.recv()
                process.join()
            row = (name, f"{total:,}", f"{before:.0f}", f"{peak:.0f}", f"{peak - before:.0f}", f"{written:.1f}")
            rows.append((*row, f"{seconds:.1f}"))
            print(rows[-1])
    header = ("export", "rows", "before, MiB", "peak, MiB", "added, MiB", "written, MiB", "seconds")
    print("\n" + table(header, rows))


def _row(number: int, png: bytes) -> dict[str, object]:
    name = f"{number:07d}"
    return {
        "image_id": name,
        "number": number + 1,
        "split": "val",
        "image_uri": f"s3://bucket/images/{name}.jpg",
        "mask": png,
        "confidence": png,
    }


if __name__ == "__main__":
    app()
