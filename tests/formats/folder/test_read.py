"""A folder per class becomes a draft."""

from pathlib import Path

import pytest
from import_cases import make_image

from raypipe.formats.folder.read import read_folder


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".txt"):
            (root / path).write_text("no image")
        else:
            make_image(root / path, kind="JPEG")


def test_folder_per_class(tmp_path: Path) -> None:
    write(tmp_path, "dog/1.jpg", "cat/b/2.PNG", "cat/ü 3#.jpeg", "cat/4", "cat/notes.txt", "cat/._1.jpg", "a/.b/1.jpg")
    draft = read_folder(str(tmp_path), split="train")
    assert draft.classes is None
    assert draft.are_there
    paths = ("cat/4", "cat/b/2.PNG", "cat/ü 3#.jpeg", "dog/1.jpg")
    assert draft.table["image_uri"].to_pylist() == [f"{tmp_path}/{path}" for path in paths]
    assert draft.table["labels"].to_pylist() == [["cat"]] * 3 + [["dog"]]
    assert draft.table["split"].to_pylist() == ["train"] * 4
    assert draft.skipped == {
        "hidden files": ["cat/._1.jpg"],
        "hidden folders": ["a/.b"],
        "files that are no images": ["cat/notes.txt"],
    }


def test_split_folders(tmp_path: Path) -> None:
    write(tmp_path, "train/dog/1.jpg", "val/cat/deep/1.jpg", "val/stray.jpg")
    draft = read_folder(str(tmp_path), split_folders=True)
    assert draft.table["split"].to_pylist() == ["train", "val"]
    assert draft.table["labels"].to_pylist() == [["dog"], ["cat"]]
    ((reason, stray),) = draft.skipped.items()
    assert "expected <split>/<class>/<image>" in reason
    assert stray == ["val/stray.jpg"]


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        read_folder(str(tmp_path / "absent"))
    write(tmp_path, "cat/notes.txt", "cat/1.jpg")
    with pytest.raises(NotADirectoryError, match=r"notes\.txt is a file; a folder is needed"):
        read_folder(str(tmp_path / "cat/notes.txt"))
    with pytest.raises(ValueError, match=r"1 image is in no class's folder.*<split>/<class>/<image>.*import table"):
        read_folder(str(tmp_path), split_folders=True)
    (tmp_path / "cat/1.jpg").unlink()
    with pytest.raises(ValueError, match=r"no images below .*1 file that is no image: 'cat/notes\.txt'"):
        read_folder(str(tmp_path))
