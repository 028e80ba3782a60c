"""The PASCAL VOC layout becomes a manifest."""

import logging
from pathlib import Path

import numpy as np
import pytest

from raypipe.data.images import decode_mask
from raypipe.data.manifest import class_ids_of
from raypipe.formats.voc.read import VOC_CLASSES, import_voc
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
        (tmp_path / f"JPEGImages/{image_id}.jpg").write_bytes(b"")
    (tmp_path / "SegmentationClass/photo 1.png").write_bytes(b"")
    (tmp_path / "Annotations/1.xml").write_text(annotation("dog", "person", "dog"))
    (tmp_path / "Annotations/photo 1.xml").write_text(annotation())
    (tmp_path / "Annotations/sub/7.xml").write_text(annotation("cat"))
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("1\r\nphoto 1\r\n\r\n")
    (tmp_path / "ImageSets/Segmentation/train_aug.txt").write_text("1\nphoto 1\nsub/7\nü")
    (tmp_path / "ImageSets/Main/dog_val.txt").write_text("1  1\nsub/7 -1\n")
    return tmp_path


def test_layout_with_annotations(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        manifest = import_voc(str(root))
    assert manifest.classes == VOC_CLASSES
    assert manifest.table["image_id"].to_pylist() == ["1", "photo 1", "sub/7", "ü"]
    assert manifest.table["labels"].to_pylist() == [["dog", "person"], [], ["cat"], None]
    assert manifest.table["split"].to_pylist() == ["train", "train", "train_aug", "train_aug"]
    assert manifest.table["mask_uri"].to_pylist() == [None, f"{root}/SegmentationClass/photo 1.png", None, None]
    assert manifest.table["image_uri"].to_pylist()[2] == f"{root}/JPEGImages/sub/7.jpg"
    assert len(manifest.select(splits=["train", "train_aug"])) == 4
    assert "1 without labels" in caplog.text


def test_order_of_lists_decides(root: Path) -> None:
    assert set(import_voc(str(root), lists=["train_aug", "train"]).table["split"].to_pylist()) == {"train_aug"}


def test_list_of_another_task(root: Path) -> None:
    manifest = import_voc(str(root), lists=["Main/dog_val"])
    assert manifest.table["image_id"].to_pylist() == ["1", "sub/7"]
    assert manifest.table["split"].to_pylist() == ["dog_val"] * 2


def test_label_table_and_other_classes(root: Path) -> None:
    (root / "labels.csv").write_text("image_id,labels\n1,yak|cat\nphoto 1,\nsub/7,cat\n")
    manifest = import_voc(str(root), labels="labels.csv")
    assert manifest.classes == ("cat", "yak")
    assert manifest.table["labels"].to_pylist() == [["cat", "yak"], [], ["cat"], None]
    assert import_voc(str(root), labels=str(root / "labels.csv"), classes=["yak", "cat"]).classes == ("yak", "cat")


def test_missing_images(root: Path) -> None:
    (root / "JPEGImages/ü.jpg").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 4 listed images aren't in .*JPEGImages, such as \['ü'\].*`skip_missing`"
    ):
        import_voc(str(root))
    assert len(import_voc(str(root), skip_missing=True)) == 3


def test_bad_layouts(root: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        import_voc(str(root / "absent"))
    with pytest.raises(FileNotFoundError, match=r"no such list: .*Segmentation/trian\.txt$"):
        import_voc(str(root), lists=["train", "trian"])
    (root / "labels.csv").write_text("id,labels\n")
    with pytest.raises(ValueError, match="expected the columns image_id and labels"):
        import_voc(str(root), labels="labels.csv")
    (root / "ImageSets/Segmentation/train.txt").write_text("\n")
    with pytest.raises(ValueError, match="are empty"):
        import_voc(str(root), lists=["train"])


@pytest.mark.parametrize(
    ("text", "message"),
    [("<annotation>", "1.xml is not XML"), ('<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type")],
)
def test_bad_annotations(root: Path, text: str, message: str) -> None:
    (root / "Annotations/1.xml").write_text(text)
    with pytest.raises(ValueError, match=message):
        import_voc(str(root))


def test_utf_16_hides_no_document_type(root: Path) -> None:
    text = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>'
    (root / "Annotations/1.xml").write_bytes(text.encode("utf-16"))
    with pytest.raises(ValueError, match="document type"):
        import_voc(str(root))


def test_no_labels_at_all(root: Path) -> None:
    for path in (root / "Annotations").rglob("*.xml"):
        path.unlink()
    with pytest.raises(ValueError, match="no image has a label"):
        import_voc(str(root))


@pytest.mark.shared_data
def test_real_voc(voc_root: Path) -> None:
    manifest = import_voc(str(voc_root), labels="image_labels.csv")
    splits = manifest.table["split"].to_pylist()
    assert {name: splits.count(name) for name in set(splits)} == {"train": 311, "train_aug": 1135, "val": 160}
    assert manifest.classes == VOC_CLASSES
    assert manifest.table["labels"].null_count == 0
    rows = manifest.select(splits=["train"]).table.to_pylist()[:20]
    for row in rows:
        present = set(np.unique(decode_mask(read_bytes(row["mask_uri"])))) - {0, 255}
        assert present <= set(class_ids_of(row["labels"], manifest.classes))


@pytest.mark.shared_data
def test_real_annotations_agree_with_the_table(voc_root: Path) -> None:
    annotated = import_voc(str(voc_root), lists=["train"]).table["labels"].to_pylist()
    tabled = import_voc(str(voc_root), lists=["train"], labels="image_labels.csv").table["labels"].to_pylist()
    assert annotated == tabled
