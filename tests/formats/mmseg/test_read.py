"""mmsegmentation's folders that others made; what raypipe exports comes back in tests/formats/test_round_trip.py."""

import json
from pathlib import Path
from typing import Any

import pytest
from import_cases import Said, column, imported, make_image, make_mask, run


def dataset(root: Path, images: str, masks: str, *, suffixes: tuple[str, str] = (".jpg", ".png")) -> Path:
    for number, name in enumerate(("train/a", "train/sub/b", "val/c")):
        make_image(root / images / f"{name}{suffixes[0]}", kind="JPEG", seed=number)
        make_mask(root / masks / f"{name}{suffixes[1]}", number)
    return root


def metainfo(root: Path, **changes: Any) -> None:
    content = {"metainfo": {"classes": ["background", "dog", "cat"]}, "reduce_zero_label": False}
    (root / "metainfo.json").write_text(json.dumps(content | changes))


@pytest.mark.parametrize("folders", [("img_dir", "ann_dir"), ("images", "annotations")])
def test_labels_are_those_of_the_masks(tmp_path: Path, folders: tuple[str, str]) -> None:
    root = dataset(tmp_path, *folders)
    metainfo(root)
    found = imported("mmseg", root, tmp_path / "m.parquet")
    assert found.classes == ("dog", "cat")
    assert column(found, "labels") == [[], ["dog"], ["cat"]]
    assert column(found, "split") == ["train", "train", "val"]
    ids = [f"{folders[0]}/{name}.jpg" for name in ("train/a", "train/sub/b", "val/c")]
    assert column(found, "image_id") == ids
    assert column(found, "mask_uri")[2] == f"{root}/{folders[1]}/val/c.png"


def test_names_are_given_where_no_file_has_them(tmp_path: Path) -> None:
    root = dataset(tmp_path, "img_dir", "ann_dir")
    for names in ("dog,cat", "background,dog,cat"):
        found = imported("mmseg", root, "--classes", names, tmp_path / f"{len(names)}.parquet")
        assert found.classes == ("dog", "cat")
        assert column(found, "labels") == [[], ["dog"], ["cat"]]
    with pytest.raises(Said, match=r"no image has a label.*--classes"):
        run("mmseg", root, tmp_path / "m.parquet")


def test_endings_of_cityscapes(tmp_path: Path) -> None:
    root = dataset(tmp_path, "leftImg8bit", "gtFine", suffixes=("_leftImg8bit.jpg", "_gtFine_labelTrainIds.png"))
    metainfo(root, img_suffix="_leftImg8bit.jpg", seg_map_suffix="_gtFine_labelTrainIds.png")
    assert column(imported("mmseg", root, tmp_path / "m.parquet"), "labels") == [[], ["dog"], ["cat"]]


def test_one_folder_without_splits(tmp_path: Path) -> None:
    make_image(tmp_path / "images/a.jpg")
    make_mask(tmp_path / "annotations/a.png", 1)
    metainfo(tmp_path)
    found = imported("mmseg", tmp_path, tmp_path / "m.parquet")
    assert (column(found, "split"), column(found, "labels")) == ([None], [["dog"]])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reduce_zero_label": True}, "reduce_zero_label"),
        ({"metainfo": {"classes": ["road", "sky"]}}, "0 is 'road'"),
        ({"metainfo": {"classes": ["background", "dog"]}}, r"has the values \[2\], but there are 1 classes"),
        ({"metainfo": {}}, "expected 'classes'"),
    ],
)
def test_ids_are_never_guessed(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    root = dataset(tmp_path, "img_dir", "ann_dir")
    metainfo(root, **changes)
    with pytest.raises(Said, match=said):
        run("mmseg", root, tmp_path / "m.parquet")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / "photos/a.jpg")
    with pytest.raises(Said, match="has none of the folders img_dir and ann_dir"):
        run("mmseg", tmp_path, tmp_path / "m.parquet")
    with pytest.raises(Said, match="there is no folder"):
        run("mmseg", tmp_path / "absent", tmp_path / "m.parquet")


def test_a_mask_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    root = dataset(tmp_path, "img_dir", "ann_dir")
    metainfo(root)
    for number in range(40):
        make_image(root / f"img_dir/train/{number}.jpg", seed=number)
        make_mask(root / f"ann_dir/train/{number}.png", 1)
    (root / "ann_dir/train/a.png").write_bytes(b"garbage")
    assert "1 mask that can't be read" in run("mmseg", root, tmp_path / "m.parquet")
