"""Masks of small images that lie in tars on S3: requests, bytes and time, and whether the masks are those of files.

    PYTHONPATH=. python benchmarks/containers.py --images 10000 --tars 10

It starts moto, a proxy that counts, and a local Ray; everything but the tars lies on the local disk. Networks are tiny
and random.
"""

import io
import tarfile
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import fsspec
import numpy as np
import typer
from measure import machine, write_random_networks
from PIL import Image
from stores import Proxy, counted_s3

from raypipe import storage
from raypipe.cluster.connect import connect
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.formats.containers import find_containers
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.imports.classes import ClassOptions
from raypipe.imports.finish import ImportOptions, finish
from raypipe.pipelines.imports.containers import read_containers
from raypipe.run import open_run
from raypipe.schema import MASKS

CLASSES = ("cat", "dog")


def write_images(folder: Path, *, number: int, side: int) -> list[Path]:
    """Writes small JPEGs, each another one."""
    rng = np.random.default_rng(0)
    paths = []
    for index in range(number):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        paths.append(folder / f"{index:06d}.jpg")
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def write_tar(paths: Sequence[Path], uri: str) -> None:
    """Writes files with their class into a tar."""
    with storage.writing(uri) as file, tarfile.open(fileobj=file, mode="w") as tar:
        for path in paths:
            tar.add(path, arcname=path.name)
            label = CLASSES[int(path.stem) % 2].encode()
            info = tarfile.TarInfo(f"{path.stem}.cls")
            info.size = len(label)
            tar.addfile(info, io.BytesIO(label))


def masks_of(manifest: str, out: Path, options: Sequence[str]) -> tuple[list[dict[str, object]], float]:
    """The masks, and the seconds of their stream."""
    config = load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *options])
    connect(config.cluster)
    run = open_run(config)
    started = time.perf_counter()
    folder = run.make_masks().uri
    seconds = time.perf_counter() - started
    rows = read_shards(f"{folder}/shards", columns=["image_id", "mask", "confidence"], schema=MASKS)
    return rows.to_pylist(), seconds


def main(images: int = 10_000, tars: int = 10, side: int = 64) -> None:
    """Runs the masks of tars and of files."""
    with counted_s3() as proxy, tempfile.TemporaryDirectory() as folder:
        compare(Path(folder), proxy, images=images, tars=tars, side=side)


def compare(folder: Path, proxy: Proxy, *, images: int, tars: int, side: int) -> None:
    """Prints what tars take, and whether their masks are those of the files."""
    (folder / "files").mkdir()
    paths = write_images(folder / "files", number=images, side=side)
    fsspec.filesystem("s3").mkdir("bucket")
    for index in range(tars):
        write_tar(paths[index * images // tars : (index + 1) * images // tars], f"s3://bucket/{index:03d}.tar")
    before = proxy.now()["passed on"]
    containers = find_containers("s3://bucket", suffix=".tar")
    draft = read_containers(WebDatasetReader(ids="key"), containers, source="s3://bucket")
    manifest = finish(draft, ImportOptions(classes=ClassOptions(classes=tuple(CLASSES)))).manifest
    imported = proxy.now()["passed on"] - before
    write_manifest(manifest, f"{folder}/tars.parquet")
    rows = [{**row, "image_uri": f"{folder}/files/{row['image_id']}.jpg"} for row in manifest.table.to_pylist()]
    write_manifest(Manifest.from_rows(rows, CLASSES), f"{folder}/files.parquet")
    options = [f"checkpoints.{task}={folder}/{task}" for task in write_random_networks(str(folder), "tiny", CLASSES)]
    options += [
        "cluster.num_cpus=2",
        "cams.scales=[1.0]",
        "walk.num_steps=1",
        "refinement={method: none, gate: off}",
        "splits.masks=null",
    ]
    expected, of_files = masks_of(f"{folder}/files.parquet", folder / "of_files", options)
    before = proxy.now()["passed on"]
    found, of_tars = masks_of(f"{folder}/tars.parquet", folder / "of_tars", options)
    requests = proxy.now()["passed on"] - before
    print(machine())
    print(f"import: {len(manifest)} images of {tars} tars, {imported} requests")
    print(f"masks: {requests} requests, {of_tars:.1f} s; of local files {of_files:.1f} s")
    print(f"{sum(one == other for one, other in zip(found, expected, strict=True))} of {len(expected)} masks are equal")


if __name__ == "__main__":
    typer.run(main)
