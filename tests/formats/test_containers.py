from pathlib import Path

import pytest

from raypipe import storage
from raypipe.formats.containers import Container, Found, SplitsFrom, find_containers, join_found, manifest_rows

FILES = ("train/00000.tar", "train/00000.idx", "train/00001.tar", "val/00000.tar", "val/note.txt")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def names(source: object, **options: object) -> list[str]:
    return [container.name for container in find_containers(str(source), suffix=".tar", **options)]  # type: ignore[arg-type]


def test_folders_patterns_and_files(folder: Path) -> None:
    assert names(folder) == ["train/00000", "train/00001", "val/00000"]
    assert names(folder / "*" / "00000.tar") == ["train/00000", "val/00000"]
    assert names(folder / "train" / "0000[1-9].tar") == ["00001"]
    assert names(folder / "train" / "00001.tar") == ["00001"]
    assert names("https://host/a/t-{08..11}.tar") == ["t-08", "t-09", "t-10", "t-11"]


def test_on_s3(bucket: str) -> None:
    for name in FILES:
        storage.write_bytes_atomic(f"{bucket}/data/{name}", b"")
    assert names(f"{bucket}/data/") == ["train/00000", "train/00001", "val/00000"]
    found = find_containers(f"{bucket}/data/train/*", suffix=".tar")
    assert [(each.uri, each.index) for each in found] == [
        (f"{bucket}/data/train/00000.tar", f"{bucket}/data/train/00000.idx"),
        (f"{bucket}/data/train/00001.tar", None),
    ]


def test_splits(folder: Path) -> None:
    found = find_containers(str(folder), suffix=".tar", splits_from=SplitsFrom.folder)
    assert [container.split for container in found] == ["train", "train", "val"]
    for name, split in (("train-00000-of-00004", "train"), ("big-val-000007", "big-val")):
        (folder / f"{name}.tar").touch()
        [found_] = find_containers(str(folder / f"{name}.tar"), suffix=".tar", splits_from=SplitsFrom.name)
        assert found_.split == split
    with pytest.raises(ValueError, match="'00000' says no split"):
        find_containers(str(folder / "train"), suffix=".tar", splits_from=SplitsFrom.name)
    with pytest.raises(ValueError, match="lies in no folder that says its split"):
        find_containers(str(folder / "train"), suffix=".tar", splits_from=SplitsFrom.folder)


def test_nothing_there(folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.parquet files"):
        find_containers(str(folder), suffix=".parquet")
    (folder / "packed").mkdir()
    (folder / "packed" / "a.tar.gz").touch()
    with pytest.raises(ValueError, match=r"a\.tar\.gz is compressed, so that no part of it can be read alone"):
        find_containers(str(folder / "packed"), suffix=".tar")


def found(*labels: str, classes: tuple[str, ...] | None = None, name: str = "a") -> Found:
    rows = [{"image_id": f"{name}{label}", "image_uri": label, "labels": [label]} for label in labels]
    return Found(rows=manifest_rows(rows, Container(uri=name, name=name)), classes=classes)


def test_classes() -> None:
    assert join_found([found("10", "9"), found("1", name="b")], "a").classes is None
    assert join_found([found("dog", classes=("dog", "cat"))], "a").classes == ("dog", "cat")
    with pytest.raises(ValueError, match="different lists of classes"):
        join_found([found("a", classes=("a",)), found("b", classes=("b",), name="b")], "a")
    with pytest.raises(ValueError, match="the containers hold no images"):
        join_found([found()], "a")


def test_rows_in_order() -> None:
    draft = join_found([found("10", "9"), found("1", name="b")], "s3://bucket/tars")
    assert draft.table["image_id"].to_pylist() == ["a10", "a9", "b1"]
    assert draft.table["number"].to_pylist() == [0, 1, 2]
    assert (draft.source, draft.are_there) == ("s3://bucket/tars", True)


def test_row_groups_that_are_read_over_and_over_are_told() -> None:
    part = found("a")
    assert join_found([part, Found(rows=part.rows.slice(0, 0), largest_read=64 << 20)], "a").notes == []
    draft = join_found([part, Found(rows=part.rows.slice(0, 0), largest_read=900 << 20, num_left_out=3)], "a")
    assert draft.notes[0] == "3 samples without an image left out"
    assert "row groups have up to 900 MiB of images" in draft.notes[1]
