"""What an export finds out about the images of all rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from raypipe.config import load_config
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.data.merge import Corrections
from raypipe.formats.base import Options
from raypipe.formats.coco.read import read_coco_files
from raypipe.formats.coco.write import Coco
from raypipe.pipelines.context import Context
from raypipe.pipelines.exports.datasets import run_export
from raypipe.pipelines.exports.images import fit_images


def make_context(uris: list[str], mask: str | None = None) -> Context:
    rows = [
        {"image_id": str(number), "image_uri": uri, "labels": [], "split": "train", "mask_uri": mask}
        for number, uri in enumerate(uris)
    ]
    return Context(load_config("", ["out=unused", "manifest=m"]), Manifest.from_rows(rows, ["cat"]))


@pytest.mark.parametrize(
    ("uris", "folder"),
    [
        (["/photos/b/2.jpg", "/photos/a/1.jpg", "/photos/c.jpg"], "/photos"),
        (["/photos/trip 1/x.jpg", "/photos/trip 2/x.jpg"], "/photos"),
        (["/photos/x.jpg"], "/photos"),
        (["/a/x.jpg", "/b/x.jpg"], None),
        (["s3://bucket/x.jpg", "s3://bucket/y.jpg"], "s3://bucket"),
        (["s3://bucket/x.jpg", "s3://bucket2/x.jpg"], None),
        (["s3://bucket/x.jpg", "https://example.org/x.jpg"], None),
        (["s3://bucket/x.jpg", "/x.jpg"], None),
    ],
)
def test_the_folder_that_all_photographs_lie_in(uris: list[str], folder: str | None) -> None:
    rows = make_context(uris).rows(None)
    assert fit_images(Coco(("cat",)), rows, all_rows=rows).image_root == folder


def test_copies_need_no_folder_of_the_photographs() -> None:
    rows = make_context(["/photos/x.jpg"]).rows(None)
    assert fit_images(Coco(("cat",), Options(copy_images=True)), rows, all_rows=rows).image_root is None


def test_a_coco_file_names_photographs_from_their_folder_on(in_this_process: None, tmp_path: Path) -> None:
    names = ["a/1.png", "b/1.png", "b/100 % ü.png"]
    png = encode_png(np.ones((4, 6), np.uint8))
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(png)
    photos = [str(tmp_path / "photos" / name) for name in names]
    context = make_context(photos, mask=photos[0])
    run_export(context, "coco", str(tmp_path / "coco"), masks=None, options=Options())
    file = tmp_path / "coco/annotations/train.json"
    assert [image["file_name"] for image in json.loads(file.read_text())["images"]] == names
    back = read_coco_files(str(file), str(tmp_path / "photos"))
    assert back.table["image_uri"].to_pylist() == names
    assert back.root == str(tmp_path / "photos")
    # Two have one name: the path from the folder on says which is meant, should a tool have dropped what names the row.
    corrections = Corrections(context.manifest, str(tmp_path / "masks"))
    assert [corrections.row_of(None, name, place=name) for name in names] == ["0", "1", "2"]
    assert corrections.row_of(None, "1.png", place="1.png") is None
