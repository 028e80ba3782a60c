"""COCO files: those that raypipe exports come back as they were, others as their documentation has them."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from export_rows import CLASSES, MASKS, exported_row, labels_of, make_rows

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.formats.base import Options
from raypipe.formats.coco.corrected import import_corrected
from raypipe.formats.coco.draw import draw_regions
from raypipe.formats.coco.read import read_coco
from raypipe.formats.draft import Draft, Drawn
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


def drawn(draft: Draft) -> Drawn:
    """The masks of all images, named after them, with the classes' own ids."""
    assert draft.draw is not None
    assert draft.classes is not None
    rows = draft.table.to_pylist()
    ids = [row["image_id"] or row["image_uri"] for row in rows]
    return draft.draw(range(len(rows)), ids, {name: k for k, name in enumerate(draft.classes, start=1)})


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
    assert draft.table["mask_uri"].null_count == 3
    uris, skipped = drawn(draft)
    _, of_a, of_c = (decode_mask(storage.read_bytes(place or "")) for place in uris)
    assert of_a.tolist() == [[1, 1, 1, 255], [1, 2, 2, 255], [1, 1, 1, 255]]
    assert not of_c.any()
    assert len(list((tmp_path / "masks").iterdir())) == 3
    assert not any(skipped.values())


def test_classes_that_are_dropped_or_merged_are_drawn_so(coco: dict[str, Any], tmp_path: Path) -> None:
    draft = read_coco(write(tmp_path, coco), str(tmp_path / "images"), masks=str(tmp_path / "masks"))
    assert draft.draw is not None
    place = draft.draw([1], ["a"], {"cat": 255, "dog": 7}).uris[0]
    assert decode_mask(storage.read_bytes(place or ""))[1].tolist() == [255, 7, 7, 255]
    place = draft.draw([1], ["a"], {"dog": 7}).uris[0]
    assert decode_mask(storage.read_bytes(place or ""))[1].tolist() == [0, 7, 7, 255]


def test_masks_into_a_manifest_by_the_names_of_its_classes(coco: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "labels": None} for name in ("z", "c", "a", "sub/b")]
    existing = Manifest.from_rows(rows, ["bird", "dog", "cat"])
    coco["annotations"].append({"id": 5, "image_id": 17, "category_id": 90, "segmentation": []})
    merged, skipped = import_corrected(write(tmp_path, coco), existing, masks=str(tmp_path / "masks"))
    assert [names for names in skipped.values() if names] == [
        ["a.jpg: annotation 5: expected run lengths or polygons as segmentation, got '[]'"]
    ]
    table = {row["image_id"]: row for row in merged.table.to_pylist()}
    assert (table["z"]["mask_uri"], table["z"]["supervision"]) == (None, None)
    assert table["a"]["image_uri"] == "a.jpg"
    assert decode_mask(storage.read_bytes(table["a"]["mask_uri"])).tolist()[1] == [3, 2, 2, 255]
    with pytest.raises(ValueError, match="unknown label 'cat'"):
        import_corrected(write(tmp_path, coco), Manifest.from_rows(rows, ["bird", "dog"]), masks=str(tmp_path / "no"))
    lacking = Manifest.from_rows(rows[:3], ["dog", "cat"])
    merged, skipped = import_corrected(write(tmp_path, coco), lacking, masks=str(tmp_path / "fewer"))
    (alien,) = skipped["masks that belong to no row of the manifest"]
    assert "'sub/b.jpg' belongs to no row of the manifest" in alien
    assert [row["mask_uri"] is not None for row in merged.table.to_pylist()] == [False, True, True]


@pytest.mark.parametrize("instances", [True, False])
def test_what_was_exported_comes_back(tmp_path: Path, instances: bool) -> None:
    format_ = FORMATS["coco"](CLASSES, Options(instances=instances))
    rows = [exported_row(replace(row, folder="all"), format_.render(row).items) for row in make_rows()]
    format_.finish(lambda: iter(rows), str(tmp_path))
    draft = read_coco(str(tmp_path / "annotations/all.json"), "/unused", masks=str(tmp_path / "masks"))
    assert draft.classes == CLASSES
    rows_read = draft.table.to_pylist()
    found = {row["image_id"]: row | {"mask": place} for row, place in zip(rows_read, drawn(draft).uris, strict=True)}
    assert set(found) == set(MASKS)
    for image_id, mask in MASKS.items():
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(found[image_id]["mask"])), mask)
        labels = labels_of(image_id)
        assert found[image_id]["labels"] == (None if labels is None else list(labels))
    assert [row["split"] for row in found.values()] == [row.split for row in make_rows()]
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
        (("categories", 0), "dog", r"categories\[0\]: expected an object with a whole number as 'id', got 'dog'"),
        (
            ("categories", 0, "id"),
            "x",
            r"categories\[0\]: expected an object with a whole number as 'id', got {'id': 'x'",
        ),
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
        (("annotations", 0, "image_id"), [17], "annotations of no image", "annotations[0]", 3),
        (("annotations", 0, "category_id"), {}, "annotations of no category", "annotations[0]: {}", 3),
        (("annotations", 0, "category_id"), True, "annotations of no category", "annotations[0]: True", 3),
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
    skipped = {**draft.skipped, **drawn(draft).skipped}
    (said,) = (names for told, names in skipped.items() if told.startswith(reason) and names)
    assert said[0].removeprefix(f"{tmp_path}/instances.json: ").startswith(example)


@pytest.mark.parametrize("kind", [str, float])
def test_ids_of_another_type(coco: dict[str, Any], tmp_path: Path, kind: Any) -> None:
    for annotation in coco["annotations"]:
        annotation |= {"image_id": kind(annotation["image_id"]), "category_id": kind(annotation["category_id"])}
    assert read_coco(write(tmp_path, coco), str(tmp_path)).table["labels"].to_pylist() == [[], ["cat", "dog"], []]


@pytest.mark.parametrize("crowd", ["0", 0, False, None, "false", 0.0, ""])
def test_no_crowd(coco: dict[str, Any], tmp_path: Path, crowd: Any) -> None:
    coco["annotations"][3]["iscrowd"] = crowd
    assert read_coco(write(tmp_path, coco), str(tmp_path)).table["labels"].to_pylist()[0] == ["cat"]


@pytest.mark.parametrize("crowd", ["1", 1, True, "True", 1.0])
def test_a_crowd(coco: dict[str, Any], tmp_path: Path, crowd: Any) -> None:
    coco["annotations"][3]["iscrowd"] = crowd
    assert read_coco(write(tmp_path, coco), str(tmp_path)).table["labels"].to_pylist()[0] == []


def test_a_file_of_no_usable_annotation_is_refused(coco: dict[str, Any], tmp_path: Path) -> None:
    for annotation in coco["annotations"]:
        annotation["image_id"] = 1_000
    with pytest.raises(ValueError, match=r"none of its annotations can be used: 4 annotations of no image"):
        read_coco(write(tmp_path, coco), str(tmp_path))


@pytest.mark.parametrize(
    ("categories", "classes"),
    [
        # Roboflow's root, that of another class, a class that is its own group, a background, twins.
        ([(0, "pets", "none"), (7, "cat", "pets"), (90, "dog", "pets")], ("cat", "dog")),
        ([(7, "cat", "pet"), (90, "dog", "pet"), (91, "pet", "")], ("cat", "dog")),
        ([(1, "person", "person"), (7, "cat", "animal"), (90, "dog", "animal")], ("person", "cat", "dog")),
        ([(0, "Background", ""), (7, "cat", ""), (90, "dog", "")], ("cat", "dog")),
        ([(7, "cat", ""), (90, "dog", ""), (91, "dog", "")], ("cat", "dog")),
        ([(90, "dog", ""), (7, " cat ", "")], ("cat", "dog")),
        ([("90", "dog", ""), (7.0, "cat", "")], ("cat", "dog")),
        ([(7, "cat", "dog"), (90, "dog", "animal")], ("cat", "dog")),
        ([(1, "void", ""), (7, "cat", ""), (90, "dog", "")], ("cat", "dog")),
        ([(7, "1e3", ""), (90, "no", "")], ("1e3", "no")),
    ],
)
def test_categories(coco: dict[str, Any], tmp_path: Path, categories: Any, classes: tuple[str, ...]) -> None:
    coco["categories"] = [{"id": k, "name": name, "supercategory": group} for k, name, group in categories]
    assert read_coco(write(tmp_path, coco), str(tmp_path)).classes == classes


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
    drawn(read_coco(write(tmp_path, coco), str(tmp_path / "images"), masks=str(tmp_path / "deep/er/masks")))
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "deep/er/masks"}
