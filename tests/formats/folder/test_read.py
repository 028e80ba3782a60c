"""A folder per class becomes a manifest."""

from pathlib import Path

import pytest

from raypipe.formats.folder.read import import_folder


def touch(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"")


def test_folder_per_class(tmp_path: Path) -> None:
    touch(tmp_path, "dog/1.jpg", "cat/b/2.PNG", "cat/ü 3#.jpeg", "cat/notes.txt", "cat/._1.jpg", "cat/.DS_Store")
    manifest = import_folder(str(tmp_path), split="train")
    assert manifest.classes == ("cat", "dog")
    assert manifest.table["image_id"].to_pylist() == ["cat/b/2.PNG", "cat/ü 3#.jpeg", "dog/1.jpg"]
    assert manifest.table["image_uri"].to_pylist()[1] == f"{tmp_path}/cat/ü 3#.jpeg"
    assert manifest.table["labels"].to_pylist() == [["cat"], ["cat"], ["dog"]]
    assert manifest.table["split"].to_pylist() == ["train"] * 3


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/dog/1.jpg", "val/cat/deep/1.jpg")
    manifest = import_folder(str(tmp_path), split_folders=True, classes=["dog", "cat"])
    assert manifest.classes == ("dog", "cat")
    assert manifest.table["split"].to_pylist() == ["train", "val"]
    assert manifest.table["labels"].to_pylist() == [["dog"], ["cat"]]


def test_a_relative_root_gives_absolute_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/cat/1.jpg")
    monkeypatch.chdir(tmp_path)
    assert import_folder("data/").table["image_uri"].to_pylist() == [f"{tmp_path}/data/cat/1.jpg"]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder"):
        import_folder(str(tmp_path / "absent"))
    touch(tmp_path, "cat/notes.txt")
    with pytest.raises(ValueError, match=r"no images below .*known endings are \.jpg"):
        import_folder(str(tmp_path))
    touch(tmp_path, "cat/1.jpg", "stray.jpg")
    with pytest.raises(ValueError, match=r"1 images are in no class's folder, such as 'stray.jpg': expected <class>/"):
        import_folder(str(tmp_path))
    with pytest.raises(ValueError, match=r"2 images are in no class's folder.*<split>/<class>/<image>"):
        import_folder(str(tmp_path), split_folders=True)


def test_too_many_classes_are_refused_by_name(tmp_path: Path) -> None:
    touch(tmp_path, *(f"c{number:03d}/1.jpg" for number in range(256)))
    with pytest.raises(ValueError, match=r"256 classes.*c254, c255"):
        import_folder(str(tmp_path))
