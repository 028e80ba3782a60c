"""COCO files: those that raypipe exports come back as they were, others as their documentation has them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_rows import CLASSES, MASKS, make_rows

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.formats.base import ExportedRow, Options
from raypipe.formats.coco.corrected import import_corrected
from raypipe.formats.coco.read import draw_regions, read_coco
from raypipe.formats.registry import FORMATS


@pytest.fixture
def coco(tmp_path: Path) -> dict[str, Any]:
    """Ids with gaps and in no order; a crowd, a bystander of another image, an image without annotations."""
    categories = [{"id": 90, "name": "dog"}, {"id": 7, "name": "cat"}]
    images = [
        {"id": 501, "file_name": "sub/b.jpg", "height": 4, "width": 5},
        {"id": 17, "file_name": "a.jpg", "height": 3, "width": 4},
        {"id": 3, "file_name": "s3://bucket/c.png", "height": 2, "width": 2},
    ]
    annotations = [
        {"id": 1, "image_id": 17, "category_id": 90, "segmentation": [[1, 1, 3, 1, 3, 2, 1, 2]], "iscrowd": 0},
        {"id": 2, "image_id": 17, "category_id": 7, "segmentation": {"size": [3, 4], "counts": [0, 9, 3]}},
        {"id": 3, "image_id": 17, "category_id": 7, "segmentation": {"size": [3, 4], "counts": [6, 6]}, "iscrowd": 1},
        {"id": 4, "image_id": 501, "category_id": 7, "segmentation": {"size": [4, 5], "counts": [20]}, "iscrowd": 1},
    ]
    return {"categories": categories, "images": images, "annotations": annotations}


def write(folder: Path, content: Any) -> str:
    (folder / "instances.json").write_text(json.dumps(content))
    return str(folder / "instances.json")


def test_labels_without_masks(coco: dict[str, Any], tmp_path: Path) -> None:
    draft = read_coco(write(tmp_path, coco), str(tmp_path / "images"), split="train")
    assert draft.classes == ("cat", "dog")
    assert draft.root == str(tmp_path / "images")
    rows = draft.table.to_pylist()
    assert [row["image_id"] for row in rows] == [None] * 3
    assert [row["image_uri"] for row in rows] == ["sub/b.jpg", "a.jpg", "s3://bucket/c.png"]
    assert [row["labels"] for row in rows] == [[], ["cat", "dog"], []]
    assert {row["split"] for row in rows} == {"train"}
    assert {row["mask_uri"] for row in rows} == {None}


def test_masks_small_on_large_and_crowds_ignored(coco: dict[str, Any], tmp_path: Path) -> None:
    draft = read_coco(write(tmp_path, coco), str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    rows = {row["image_uri"]: row for row in draft.table.to_pylist()}
    assert {row["supervision"] for row in rows.values()} == {"mask"}
    found = decode_mask(storage.read_bytes(rows["a.jpg"]["mask_uri"]))
    assert found.tolist() == [[1, 1, 1, 255], [1, 2, 2, 255], [1, 1, 1, 255]]
    assert not decode_mask(storage.read_bytes(rows["s3://bucket/c.png"]["mask_uri"])).any()
    assert len(list((tmp_path / "masks").iterdir())) == 3


def test_masks_into_a_manifest_by_the_names_of_its_classes(coco: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "labels": None} for name in ("z", "c", "a", "sub/b")]
    existing = Manifest.from_rows(rows, ["bird", "dog", "cat"])
    merged = import_corrected(write(tmp_path, coco), existing, masks=str(tmp_path / "masks"))
    table = {row["image_id"]: row for row in merged.table.to_pylist()}
    assert (table["z"]["mask_uri"], table["z"]["supervision"]) == (None, None)
    assert table["a"]["image_uri"] == "a.jpg"
    assert decode_mask(storage.read_bytes(table["a"]["mask_uri"])).tolist()[1] == [3, 2, 2, 255]
    with pytest.raises(ValueError, match="unknown label 'cat'"):
        import_corrected(write(tmp_path, coco), Manifest.from_rows(rows, ["bird", "dog"]), masks=str(tmp_path / "no"))
    lacking = Manifest.from_rows(rows[:3], ["dog", "cat"])
    with pytest.raises(ValueError, match=r"'sub/b\.jpg' belongs to no row of the manifest"):
        import_corrected(write(tmp_path, coco), lacking, masks=str(tmp_path / "no"))


@pytest.mark.parametrize("instances", [True, False])
def test_what_was_exported_comes_back(tmp_path: Path, instances: bool) -> None:
    format_ = FORMATS["coco"](CLASSES, Options(instances=instances))
    rows = [
        ExportedRow(
            image_id=row.image_id,
            number=row.number,
            split="all",
            image_uri=row.image_uri,
            items=format_.render(row).items,
        )
        for row in make_rows()
    ]
    format_.finish(lambda: iter(rows), str(tmp_path))
    draft = read_coco(str(tmp_path / "annotations/all.json"), "/unused", masks=str(tmp_path / "masks"))
    assert draft.classes == CLASSES
    found = {row["image_id"]: row for row in draft.table.to_pylist()}
    assert set(found) == set(MASKS)
    for image_id, mask in MASKS.items():
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(found[image_id]["mask_uri"])), mask)
        names = [CLASSES[value - 1] for value in np.unique(mask) if 0 < value < 255]
        assert found[image_id]["labels"] == names
    assert found["plain"]["image_uri"] == make_rows()[0].image_uri


def change(coco: dict[str, Any], path: tuple[Any, ...], value: object) -> None:
    *parents, last = path
    part: Any = coco
    for key in parents:
        part = part[key]
    part[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("images",), None, "expected 'images' of type list, got 'None'"),
        (("annotations",), {}, "expected 'annotations' of type list, got '{}'"),
        (("categories",), None, "expected 'categories' of type list, got 'None'"),
        (("categories",), [], "has no categories"),
        (("categories", 0), "dog", r"categories\[0\]: expected 'id' of type int, got 'None'"),
        (("categories", 0, "id"), "x", r"categories\[0\]: expected 'id' of type int, got 'x'"),
        (("categories", 0, "id"), 7, r"categories\[1\]: the id 7 is that of 'dog' already"),
    ],
)
def test_files_that_say_nothing_of_classes_or_images(
    coco: dict[str, Any], tmp_path: Path, path: tuple[Any, ...], value: object, message: str
) -> None:
    change(coco, path, value)
    with pytest.raises(ValueError, match=message):
        read_coco(write(tmp_path, coco), str(tmp_path), masks=str(tmp_path / "masks"))


@pytest.mark.parametrize(
    ("path", "value", "reason", "example", "number"),
    [
        (("images", 0, "file_name"), None, "images without an id or a file name", "images[0]", 2),
        (("images", 0, "file_name"), " ", "images without an id or a file name", "images[0]", 2),
        (("images", 1), [], "images without an id or a file name", "images[1]", 2),
        (("images", 1, "id"), 501, "images whose id another image has", "a.jpg (501)", 2),
        (("images", 1, "id"), None, "images without an id or a file name", "images[1]", 2),
        (("images", 1, "file_name"), "sub/b.jpg", "images that are named again", "sub/b.jpg", 2),
        (("annotations", 0, "image_id"), 5, "annotations of no image", "annotations[0]", 3),
        (("annotations", 0, "category_id"), 5, "annotations of no category", "annotations[0]: 5", 3),
        (("annotations", 0), "x", "annotations of no image", "annotations[0]", 3),
        (("annotations", 0, "image_id"), None, "annotations of no image", "annotations[0]", 3),
        (("annotations", 0, "segmentation"), [], "regions that can't be drawn", "a.jpg: annotation 1: expected run", 3),
        (("images", 1, "height"), 2, "regions that can't be drawn", "a.jpg: annotation 2: expected run lengths of", 3),
        (("images", 1, "height"), -3, "masks of images whose height and width aren't known", "a.jpg", 3),
        (("images", 1, "height"), 10**9, "masks of images whose height and width aren't known", "a.jpg", 3),
        (("images", 1, "height"), None, "masks of images whose height and width aren't known", "a.jpg", 3),
    ],
)
def test_one_bad_item_is_left_out_and_said(
    coco: dict[str, Any],
    tmp_path: Path,
    path: tuple[Any, ...],
    value: object,
    reason: str,
    example: str,
    number: int,
) -> None:
    change(coco, path, value)
    draft = read_coco(write(tmp_path, coco), str(tmp_path), masks=str(tmp_path / "masks"))
    assert draft.table.num_rows == number
    (said,) = (names for told, names in draft.skipped.items() if told.startswith(reason))
    assert said[0].removeprefix(f"{tmp_path}/instances.json: ").startswith(example)


def test_a_category_may_have_any_name(coco: dict[str, Any], tmp_path: Path) -> None:
    coco["categories"] = [{"id": 90, "name": 3}, {"id": 7}]
    assert read_coco(write(tmp_path, coco), str(tmp_path)).classes == ("7", "3")


@pytest.mark.parametrize("content", [b"", b"{", b"[" * 100_000, b"\xff"])
def test_files_that_are_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match="is no JSON"):
        read_coco(str(tmp_path / "a.json"), "/images")


def test_an_image_without_annotations_is_background() -> None:
    mask, damaged = draw_regions([], {}, height=2, width=3)
    assert mask.tolist() == [[0, 0, 0]] * 2
    assert damaged == []


def test_ids_never_leave_the_folder(coco: dict[str, Any], tmp_path: Path) -> None:
    coco["images"][1]["raypipe_id"] = "../../../x"
    read_coco(write(tmp_path, coco), str(tmp_path / "images"), masks=str(tmp_path / "deep/er/masks"))
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "deep/er/masks"}
