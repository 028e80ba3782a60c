"""COCO as it comes back from CVAT: in a zip, a file for each subset."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_cases import Said, make_image, run

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.formats.coco.corrected import import_corrected


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rows = []
    for name in ("a", "b"):
        make_image(tmp_path / f"images/{name}.jpg")
        rows.append({"image_id": name, "image_uri": f"{tmp_path}/images/{name}.jpg", "labels": ["cat"]})
    return Manifest.from_rows(rows, ["dog", "cat"])


def instances(name: str, category: str = "cat") -> dict[str, Any]:
    """As CVAT 2 writes them: categories counted from 1, and a polygon a region."""
    region = {"segmentation": [[10, 10, 50, 10, 50, 30, 10, 30]], "bbox": [10, 10, 40, 20], "area": 800, "iscrowd": 0}
    return {
        "licenses": [{"name": "", "id": 0, "url": ""}],
        "info": {"contributor": "", "date_created": ""},
        "categories": [
            {"id": 1, "name": category, "supercategory": ""},
            {"id": 2, "name": "bird", "supercategory": ""},
        ],
        "images": [{"id": 1, "width": 128, "height": 96, "file_name": name, "license": 0, "date_captured": 0}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **region, "attributes": {"occluded": False}}],
    }


def cvat_zip(path: Path, **subsets: dict[str, Any]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in subsets.items():
            file.writestr(f"annotations/instances_{name}.json", json.dumps(content))
        file.writestr("images/train/a.jpg", b"")
    return path


def test_a_zip_of_subsets_comes_back(tmp_path: Path, manifest: Manifest) -> None:
    source = cvat_zip(tmp_path / "cvat.zip", train=instances("a.jpg"), val=instances("sub/b.jpg", "dog"))
    found, skipped = import_corrected(str(source), manifest, masks=str(tmp_path / "masks"))
    expected = np.zeros((96, 128), np.uint8)
    expected[10:30, 10:50] = 1
    for row, class_id in zip(found.table.to_pylist(), (2, 1), strict=True):
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(row["mask_uri"])), expected * class_id)
    assert not any(skipped.values())


def test_the_command_takes_the_zip(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(manifest, str(tmp_path / "m.parquet"))
    source = cvat_zip(tmp_path / "cvat.zip", default=instances("a.jpg"))
    run("corrected-coco", source, tmp_path / "m.parquet", tmp_path / "new.parquet")
    masks = read_manifest(str(tmp_path / "new.parquet")).table["mask_uri"].to_pylist()
    assert [one is not None for one in masks] == [True, False]


def test_a_zip_without_coco_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(manifest, str(tmp_path / "m.parquet"))
    with pytest.raises(Said, match=r"holds no \.json file of COCO's"):
        run("corrected-coco", cvat_zip(tmp_path / "c.zip"), tmp_path / "m.parquet", tmp_path / "new.parquet")
