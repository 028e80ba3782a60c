"""The PASCAL VOC layout becomes a draft."""

from pathlib import Path

import numpy as np
import pytest
from import_cases import make_image, make_mask

from raypipe import uri
from raypipe.data.images import decode_mask
from raypipe.data.manifest import class_ids_of
from raypipe.formats.voc.read import VOC_CLASSES, read_voc
from raypipe.imports.finish import ImportOptions, finish
from raypipe.storage import read_bytes


def annotation(*names: str) -> str:
    objects = "".join(
        f"<object><name>{name}</name><part><name>head</name></part><difficult>0</difficult></object>" for name in names
    )
    return f"<annotation><filename>x</filename>{objects}</annotation>"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Ids of several forms; two lists, the second containing the first."""
    for folder in (
        "ImageSets/Segmentation",
        "ImageSets/Main",
        "JPEGImages/sub",
        "Annotations/sub",
        "SegmentationClass",
    ):
        (tmp_path / folder).mkdir(parents=True)
    for image_id in ("1", "photo 1", "sub/7", "ü"):
        make_image(tmp_path / f"JPEGImages/{image_id}.jpg")
    make_mask(tmp_path / "SegmentationClass/photo 1.png", 0)
    (tmp_path / "Annotations/1.xml").write_text(annotation("dog", "person", "dog"))
    (tmp_path / "Annotations/photo 1.xml").write_text(annotation())
    (tmp_path / "Annotations/sub/7.xml").write_text(annotation("cat"))
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("1\r\nphoto 1\r\n\r\n")
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").write_text("1\nphoto 1\nsub/7\nü")
    (tmp_path / "ImageSets/Main/dog_val.txt").write_text("1  1\nsub/7 -1\n")
    return tmp_path


def test_layout_with_annotations(root: Path) -> None:
    draft = read_voc(str(root))
    assert (draft.classes, draft.classes_from, draft.colors) == (VOC_CLASSES, "PASCAL VOC", None)
    assert (draft.root, draft.any_ending) == (f"{root}/JPEGImages", True)
    ids = ["1", "photo 1", "sub/7", "ü"]
    assert draft.table["image_id"].to_pylist() == draft.table["image_uri"].to_pylist() == ids
    assert draft.table["labels"].to_pylist() == [["dog", "person"], [], ["cat"], None]
    assert draft.table["split"].to_pylist() == ["train", "train", "train_aug", "train_aug"]
    masks = draft.table["mask_uri"].to_pylist()
    assert [one and uri.absolute(one) for one in masks] == [None, f"{root}/SegmentationClass/photo 1.png", None, None]


def test_order_of_lists_decides(root: Path) -> None:
    assert set(read_voc(str(root), lists=["train_aug", "train"]).table["split"].to_pylist()) == {"train_aug"}


def test_a_limit_is_one_of_each_split(root: Path) -> None:
    assert read_voc(str(root)).limit(1).table["image_id"].to_pylist() == ["1", "sub/7"]


def test_list_of_another_task(root: Path) -> None:
    draft = read_voc(str(root), lists=["Main/dog_val"])
    assert draft.table["image_id"].to_pylist() == ["1", "sub/7"]
    assert draft.table["split"].to_pylist() == ["dog_val"] * 2


def test_lists_of_other_names_are_all_taken_where_there_are_no_usual_ones(root: Path) -> None:
    for name in ("train", "train_aug"):
        (root / f"ImageSets/Segmentation/{name}.txt").rename(root / f"ImageSets/Segmentation/my_{name}.txt")
    assert set(read_voc(str(root)).table["split"].to_pylist()) == {"my_train", "my_train_aug"}


def test_label_table_and_other_classes(root: Path) -> None:
    (root / "labels.csv").write_text("image_id,labels\n1,yak|cat\nphoto 1,\nsub/7, cat\n8,cat\n")
    draft = read_voc(str(root), labels="labels.csv")
    assert draft.classes is None
    assert draft.table["labels"].to_pylist() == [["yak", "cat"], [], ["cat"], None]
    assert draft.notes == ["1 image of labels.csv is in no list, such as '8'"]


def test_a_labelmap_says_the_classes(root: Path) -> None:
    (root / "labelmap.txt").write_text("# label:color_rgb:parts:actions\nperson:1,2,3::\nbackground:0,0,0::\ndog:::\n")
    draft = read_voc(str(root))
    assert draft.classes == ("person", "dog")
    assert draft.classes_from == f"{root}/labelmap.txt"
    assert draft.colors == {(1, 2, 3): 1, (0, 0, 0): 0}


def test_missing_images(root: Path) -> None:
    (root / "JPEGImages/ü.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 4 images can't be used: 'ü' \(list train_aug\) isn't there.*--skip-miss"
    ):
        finish(read_voc(str(root)))
    found = finish(read_voc(str(root)), ImportOptions(skip_missing=True)).manifest
    assert found.table["image_id"].to_pylist() == ["1", "photo 1", "sub/7"]
    assert uri.absolute(found.table["image_uri"][2].as_py()) == f"{root}/JPEGImages/sub/7.jpg"


def test_bad_layouts(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no such list: .*absent/ImageSets/Segmentation/train\.txt"):
        read_voc(str(root / "absent"))
    with pytest.raises(
        FileNotFoundError, match=r"no such list: .*Segmentation/trian\.txt\. There are Main/dog_val, train"
    ):
        read_voc(str(root), lists=["train", "trian"])
    (root / "labels.csv").write_text("id,labels\n1,cat\n")
    with pytest.raises(ValueError, match="expected the columns image_id and labels"):
        read_voc(str(root), labels="labels.csv")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(ValueError, match="are empty"):
        read_voc(str(root), lists=["train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("<annotation>", "1.xml is not XML"), ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type")],
)
def test_bad_annotations(root: Path, text: str, message: str) -> None:
    (root / "Annotations/1.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_voc(str(root))


def test_utf_16_hides_no_document_type(root: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'
    (root / "Annotations/1.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="document type"):
        read_voc(str(root))


def test_no_labels_at_all(root: Path) -> None:
    for path in (root / "Annotations").rglob("*.xml"):
        path.unlink()
    with pytest.raises(ValueError, match="no image has a label"):
        finish(read_voc(str(root)))


@pytest.mark.shared_data
def test_real_voc(voc_root: Path) -> None:
    imported = finish(read_voc(str(voc_root), labels="image_labels.csv"))
    manifest = imported.manifest
    splits = manifest.table["split"].to_pylist()
    assert {name: splits.count(name) for name in set(splits)} == {"train": 311, "train_aug": 1135, "val": 160}
    assert manifest.classes == VOC_CLASSES
    assert manifest.table["labels"].null_count == 0
    assert "images: 1,606 found, 0 missing or unusable" in imported.account.lines
    rows = manifest.select(splits=["train"]).table.to_pylist()[:20]
    for row in rows:
        present = set(np.unique(decode_mask(read_bytes(row["mask_uri"])))) - {0, 255}
        assert present <= set(class_ids_of(row["labels"], manifest.classes))


@pytest.mark.shared_data
def test_real_annotations_agree_with_the_table(voc_root: Path) -> None:
    annotated = read_voc(str(voc_root), lists=["train"]).table["labels"].to_pylist()
    tabled = read_voc(str(voc_root), lists=["train"], labels="image_labels.csv").table["labels"].to_pylist()
    assert annotated == tabled
