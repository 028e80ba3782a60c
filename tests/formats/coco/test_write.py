"""COCO, read back by pycocotools."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from export_rows import CLASSES, MASKS, SPLITS
from numpy.typing import NDArray
from pycocotools.coco import COCO
from scipy import ndimage

from raypipe.formats.components import components
from raypipe.schema import IGNORE

Export = Callable[..., Path]


def read(path: Path) -> tuple[COCO, dict[str, NDArray[np.uint8]]]:
    """What pycocotools makes of a file, and the masks that its annotations add up to."""
    coco = COCO(str(path))
    masks = {}
    for image in coco.loadImgs(coco.getImgIds()):
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            pixels = coco.annToMask(annotation).astype(bool)
            assert pixels.sum() == annotation["area"]
            rows, columns = np.nonzero(pixels)
            assert annotation["bbox"] == [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            mask[pixels] = IGNORE if annotation["iscrowd"] else annotation["category_id"]
        masks[image["raypipe_id"]] = mask
    return coco, masks


@pytest.mark.parametrize("instances", [True, False])
def test_pycocotools_reads_the_same_masks(export: Export, instances: bool) -> None:
    folder = export("coco", instances=instances)
    found: dict[str, NDArray[np.uint8]] = {}
    for split in SPLITS:
        coco, masks = read(folder / f"annotations/{split}.json")
        found |= masks
        assert [(one["id"], one["name"]) for one in coco.loadCats(coco.getCatIds())] == [*enumerate(CLASSES, start=1)]
        assert {one["score"] for one in coco.loadAnns(coco.getAnnIds(iscrowd=False))} == {0.2}
    assert set(found) == set(MASKS)
    for image_id, mask in MASKS.items():
        np.testing.assert_array_equal(found[image_id], mask, err_msg=image_id)


def test_an_instance_is_a_component(export: Export) -> None:
    folder = export("coco")
    coco, _ = read(folder / "annotations/val.json")
    (plain,) = (image["id"] for image in coco.loadImgs(coco.getImgIds()) if image["raypipe_id"] == "plain")
    for class_id in (1, 2, 3):
        annotations = coco.getAnnIds(imgIds=plain, catIds=class_id, iscrowd=False)
        assert len(annotations) == ndimage.label(MASKS["plain"] == class_id, np.ones((3, 3)))[1]
    assert len(coco.getAnnIds(imgIds=plain, iscrowd=True)) == 3
    assert len(json.loads((folder / "annotations/train.json").read_text())["annotations"]) > 0


def test_annotations_have_their_own_ids_and_images_their_place(export: Export) -> None:
    folder = export("coco", copy_images=True)
    contents = [json.loads((folder / f"annotations/{split}.json").read_text()) for split in SPLITS]
    ids = [annotation["id"] for content in contents for annotation in content["annotations"]]
    assert sorted(ids) == list(range(1, len(ids) + 1))
    images = {image["id"]: image for content in contents for image in content["images"]}
    assert [images[number]["raypipe_id"] for number in sorted(images)] == list(MASKS)
    assert images[1]["file_name"] == "plain.png"
    assert images[1]["coco_url"] == "s3://bucket/images/plain.PNG"


@pytest.mark.parametrize(
    ("root", "name"),
    [("s3://bucket/images", "plain.PNG"), ("s3://bucket", "images/plain.PNG"), (None, "s3://bucket/images/plain.PNG")],
)
def test_names_count_from_the_folder_of_the_photographs(export: Export, root: str | None, name: str) -> None:
    content = json.loads((export("coco", image_root=root) / "annotations/val.json").read_text())
    (image,) = (image for image in content["images"] if image["raypipe_id"] == "plain")
    assert (image["file_name"], image["coco_url"]) == (name, "s3://bucket/images/plain.PNG")
    assert content["info"].get("image_folder") == root


def test_the_table_of_images_names_the_files_that_the_json_names(export: Export) -> None:
    for options in ({"image_root": "s3://bucket"}, {"copy_images": True}):
        folder = export("coco", **options)
        with (folder / "images.csv").open(newline="") as file:
            listed = {row["image_id"]: row["file"] for row in csv.DictReader(file)}
        contents = [json.loads((folder / f"annotations/{split}.json").read_text()) for split in SPLITS]
        named = {image["raypipe_id"]: image["file_name"] for content in contents for image in content["images"]}
        assert listed == {
            image_id: ("images/" if "copy_images" in options else "") + name for image_id, name in named.items()
        }


def test_small_components_may_be_left_out() -> None:
    mask = np.array([[1, 0, 0, 2], [0, 1, 0, 2], [0, 0, 0, 2], [1, 0, 0, 0]], np.uint8)
    found = [(one.class_id, one.top, one.left, one.area) for one in components(mask, [1, 2], min_area=2)]
    assert found == [(1, 0, 0, 2), (2, 0, 3, 3)]
