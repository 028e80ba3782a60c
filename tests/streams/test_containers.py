"""Images in containers: the same masks as of loose files, by few requests."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from container_files import CountingServer, counting, picture, write_images, write_tar

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.data.shards import read_shards
from raypipe.formats.containers import find_containers
from raypipe.formats.labels import LabelReader
from raypipe.formats.parquet.read import ParquetReader
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.imports.classes import ClassOptions
from raypipe.imports.finish import ImportOptions, finish
from raypipe.pipelines.imports.containers import read_containers
from raypipe.run import open_run
from raypipe.schema import MASKS, QUARANTINE

NUM_IMAGES, NUM_TARS = 400, 2
CLASSES = ("cat", "dog")
IDS = [f"{number:03d}" for number in range(NUM_IMAGES)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files, tars and a Parquet file of the same images."""
    folder = tmp_path_factory.mktemp("containers")
    images = {image_id: picture(number) for number, image_id in enumerate(IDS)}
    (folder / "loose").mkdir()
    for image_id, image in images.items():
        (folder / "loose" / f"{image_id}.jpg").write_bytes(image)
    for index in range(NUM_TARS):
        members = {
            f"{image_id}.{ending}": content
            for image_id in IDS[index::NUM_TARS]
            for ending, content in (("jpg", images[image_id]), ("cls", str(int(image_id) % 2).encode()))
        }
        write_tar(folder / f"{index}.tar", members)
    some = [images[image_id] for image_id in IDS[:100]]
    labels = pa.array([int(image_id) % 2 for image_id in IDS[:100]])
    write_images(folder / "p.parquet", some, image_id=IDS[:100], label=labels, rows_per_group=25)
    return folder


@pytest.fixture
def server(folder: Path) -> Iterator[CountingServer]:
    with counting(folder) as server:
        yield server


@pytest.fixture(scope="module")
def options(classifier_uri: str, affinity_uri: str) -> list[str]:
    return [
        f"checkpoints.classifier={classifier_uri}",
        f"checkpoints.affinity={affinity_uri}",
        "cams.scales=[1.0]",
        "walk.num_steps=1",
        "refinement={method: none, gate: off}",
        "splits.masks=null",
        "segmenter.enabled=false",
    ]


def masks_of(manifest: Manifest, out: Path, options: list[str]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The masks' rows, and what was quarantined."""
    write_manifest(manifest, f"{out}/manifest.parquet")
    run = open_run(load_config("preset: demo", [f"manifest={out}/manifest.parquet", f"out={out}", *options]))
    folder = run.make_masks().uri
    columns = ["image_id", "height", "width", "mask", "confidence"]
    masks = read_shards(f"{folder}/shards", columns=columns, schema=MASKS).to_pylist()
    return masks, read_shards(f"{folder}/quarantine", schema=QUARANTINE).to_pylist()


@pytest.fixture(scope="module")
def loose(
    local_ray: None, folder: Path, options: list[str], tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    """Masks of the loose files."""
    rows = [
        {"image_id": image_id, "image_uri": f"{folder}/loose/{image_id}.jpg", "labels": [CLASSES[int(image_id) % 2]]}
        for image_id in IDS
    ]
    masks, _ = masks_of(Manifest.from_rows(rows, CLASSES), tmp_path_factory.mktemp("loose"), options)
    assert len(masks) == NUM_IMAGES
    return masks


def test_tars(loose: list[dict[str, Any]], server: CountingServer, options: list[str], tmp_path: Path) -> None:
    """A tenth of the requests that loose files take, and fewer than blocks."""
    reader = WebDatasetReader(ids="key", reader=LabelReader(names=CLASSES))
    containers = find_containers(f"{server.url}/{{0..{NUM_TARS - 1}}}.tar", suffix=".tar")
    order = ImportOptions(classes=ClassOptions(classes=tuple(CLASSES)))
    manifest = finish(read_containers(reader, containers, source=server.url), order).manifest
    server.asked.clear()
    assert masks_of(manifest, tmp_path, options) == (loose, [])
    assert len(server.asked) <= NUM_IMAGES // 25, "20 for each tar is the target; 50 blocks would take 50"


def test_parquet(loose: list[dict[str, Any]], server: CountingServer, options: list[str], tmp_path: Path) -> None:
    """A row that isn't there is quarantined, and no other."""
    [container] = find_containers(f"{server.url}/p.parquet", suffix=".parquet")
    manifest = finish(read_containers(ParquetReader(), [container], source=server.url)).manifest
    absent = {"image_id": "x", "image_uri": f"{container.uri}#column=image.bytes&row=100", "labels": ["cat"]}
    manifest = Manifest.from_rows([*manifest.table.to_pylist(), absent], manifest.classes)
    server.asked.clear()
    masks, quarantine = masks_of(manifest, tmp_path, options)
    assert masks == loose[:100]
    assert [(row["image_id"], row["stage"]) for row in quarantine] == [("x", "FetchImages")]
    assert "no row 100 (counted from 0): there are 100" in quarantine[0]["reason"]
    assert len(server.asked) <= 4 * 5, "the footer and each row group once a process"
