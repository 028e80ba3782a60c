"""Manifests of several parts in a folder, and of one file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe import schema, storage
from raypipe.data.manifest import Manifest, manifest_bytes
from raypipe.data.parts import check_target, open_manifest, read_manifest, write_manifest, write_parts
from raypipe.data.rows import ONLY_PART

CLASSES = ("cat", "dog")


def make(names: Sequence[str], **columns: Any) -> Manifest:
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "labels": ["cat"]} | columns for name in names]
    return Manifest.from_rows(rows, CLASSES)


def write(path: Path, manifest: Manifest, *, classes: Sequence[str] = CLASSES) -> None:
    storage.write_bytes_atomic(str(path), manifest_bytes(manifest.table, classes))


def ids(table: pa.Table) -> list[str]:
    names: list[str] = table["image_id"].to_pylist()
    return names


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three parts, the last in a folder of its own, and files that are none."""
    folder = tmp_path / "manifest"
    write(folder / "one.parquet", make(["a", "b"], split="train"))
    write(folder / "two.parquet", make(["c"], split="val"))
    write(folder / "more" / "three.parquet", make(["d", "e", "f"]))
    (folder / "_metadata.parquet").write_bytes(b"no part")
    (folder / ".hidden.parquet").write_bytes(b"no part")
    (folder / "readme.txt").write_text("no part")
    return folder


def test_a_folder_is_its_parts(folder: Path) -> None:
    found = open_manifest(str(folder))
    assert (len(found), found.classes) == (6, CLASSES)
    by_name = {part.name: part for part in found.parts}
    assert len(by_name) == 3
    assert {"one", "two"} < set(by_name)
    assert (by_name["one"].num_rows, ids(by_name["one"].read())) == (2, ["a", "b"])
    assert sorted(ids(found.table)) == list("abcdef")
    for name in by_name:
        assert "/" not in name, "it names a folder of outputs"
        assert name != ONLY_PART


def test_files_of_one_name_in_two_folders_are_two_parts(tmp_path: Path) -> None:
    for place, name in (("x", "a"), ("y", "b"), ("x-y", "c")):
        write(tmp_path / place / "part.parquet", make([name]))
    write(tmp_path / "x-part.parquet", make(["d"]))
    found = open_manifest(str(tmp_path))
    assert len({part.name for part in found.parts}) == 4


def test_a_file_is_one_part_whatever_its_name(tmp_path: Path) -> None:
    for name in ("first.parquet", "_grown.parquet"):
        write(tmp_path / name, make(["a"]))
        (part,) = open_manifest(str(tmp_path / name)).parts
        assert part.name == ONLY_PART


def test_no_row_is_read_before_it_is_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pq, "read_table", lambda *_, **__: pytest.fail("only footers are needed"))
    found = open_manifest(str(folder))
    assert [part.num_rows for part in found.parts if part.name != "three"]
    assert found.splits == {"train", "val"}


def test_parts_of_different_classes_are_refused(folder: Path) -> None:
    write(folder / "two.parquet", make(["c"]), classes=("dog", "cat"))
    with pytest.raises(ValueError, match=r"the classes \['dog', 'cat'\].*\['cat', 'dog'\].* the same order"):
        open_manifest(str(folder))


@pytest.mark.parametrize("classes", ['"cat"', "[1]", "[]", "{", None])
def test_a_part_without_usable_classes_is_named(folder: Path, classes: str | None) -> None:
    metadata = None if classes is None else {schema.CLASSES_KEY: classes.encode()}
    pq.write_table(make(["c"]).table.replace_schema_metadata(metadata), folder / "two.parquet")
    with pytest.raises(ValueError, match=r"two\.parquet"):
        open_manifest(str(folder))


def test_a_file_that_is_no_parquet_is_named(folder: Path) -> None:
    (folder / "two.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ValueError, match=r"two\.parquet is not a Parquet file"):
        open_manifest(str(folder))


def test_a_part_without_rows_is_a_part(folder: Path) -> None:
    write(folder / "two.parquet", make(["x"]).select())
    write(folder / "two.parquet", Manifest(make(["x"]).table.slice(0, 0), CLASSES))
    found = open_manifest(str(folder))
    assert {part.name: part.num_rows for part in found.parts}["two"] == 0
    assert len(found.table) == 5
    assert found.splits == {"train"}


def test_a_manifest_without_rows_is_refused(tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"{number}.parquet", Manifest(make(["x"]).table.slice(0, 0), CLASSES))
    with pytest.raises(ValueError, match=r"has no rows: import the dataset again"):
        open_manifest(str(tmp_path))


@pytest.mark.parametrize("name", ["absent", "absent.parquet", "empty"])
def test_nothing_there_is_said(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=name):
        open_manifest(str(tmp_path / name))


def test_some_splits_come_from_statistics_and_all_from_the_column(tmp_path: Path) -> None:
    rows = [row | {"split": split} for split, row in zip("abc", make("123").table.to_pylist(), strict=True)]
    write(tmp_path / "m.parquet", Manifest.from_rows(rows, CLASSES))
    found = open_manifest(str(tmp_path / "m.parquet"))
    assert found.some_splits == {"a", "c"}, "the least and the greatest"
    assert found.splits == {"a", "b", "c"}


def test_a_manifest_without_splits_has_none(tmp_path: Path) -> None:
    write(tmp_path / "null.parquet", make(["a"]))
    write(tmp_path / "absent.parquet", make(["b"]))
    table = make(["b"]).table.drop_columns(["split"])
    (tmp_path / "absent.parquet").write_bytes(manifest_bytes(table, CLASSES))
    found = open_manifest(str(tmp_path))
    assert found.some_splits == found.splits == frozenset()


def test_relative_uris_start_from_the_file_of_their_part(folder: Path) -> None:
    uris = {row["image_id"]: row["image_uri"] for row in read_manifest(str(folder)).table.to_pylist()}
    assert uris["a"] == f"{folder}/a.jpg"
    assert uris["d"] == f"{folder}/more/d.jpg"


def test_an_id_in_two_parts_is_refused_where_all_rows_are_read(folder: Path) -> None:
    write(folder / "two.parquet", make(["a"]))
    with pytest.raises(ValueError, match=r"1 image_id is given more than once, such as \['a'\]"):
        read_manifest(str(folder))


def test_a_row_that_is_not_valid_names_its_part(folder: Path) -> None:
    table = make(["c"]).table
    ids = table.set_column(0, "image_id", pa.array([""], pa.string()))
    (folder / "two.parquet").write_bytes(manifest_bytes(ids, CLASSES))
    found = open_manifest(str(folder))
    with pytest.raises(ValueError, match=r"two\.parquet: 1 row has no image_id"):
        found.read()


def test_a_manifest_goes_to_a_file_or_to_a_folder_of_parts(tmp_path: Path) -> None:
    manifest = make([f"{number}" for number in range(7)])
    write_manifest(manifest, str(tmp_path / "one.parquet"))
    write_manifest(manifest, str(tmp_path / "parts"), rows_per_part=3)
    assert [part.num_rows for part in open_manifest(str(tmp_path / "parts")).parts] == [3, 3, 1]
    for name in ("one.parquet", "parts"):
        found = read_manifest(str(tmp_path / name))
        assert (ids(found.table), found.classes) == (ids(manifest.table), CLASSES)


def test_parts_are_written_one_after_another(tmp_path: Path) -> None:
    tables = (make([name]).table for name in "abc")
    assert write_parts(tables, CLASSES, str(tmp_path)) == 3
    assert ids(read_manifest(str(tmp_path)).table) == ["a", "b", "c"]


def test_a_folder_in_a_bucket(bucket: str) -> None:
    write_manifest(make(["a", "b", "c"]), f"{bucket}/data/manifest", rows_per_part=2)
    found = open_manifest(f"{bucket}/data/manifest/")
    assert [part.name for part in found.parts] == ["part-00000", "part-00001"]
    assert ids(found.table) == ["a", "b", "c"]
    assert found.table["image_uri"][0].as_py() == f"{bucket}/data/manifest/a.jpg"
    write_manifest(make(["a"]), f"{bucket}/one.parquet")
    (part,) = open_manifest(f"{bucket}/one.parquet").parts
    assert (part.name, part.num_rows) == (ONLY_PART, 1)


def test_a_smaller_manifest_leaves_no_part_of_a_larger_one(tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    other = tmp_path / "m/notes.parquet"
    other.touch()
    for number in (5, 2):
        rows = [{"image_id": str(row), "image_uri": f"/{row}.jpg", "labels": []} for row in range(number)]
        write_manifest(Manifest.from_rows(rows, CLASSES), str(tmp_path / "m"), rows_per_part=1)
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "notes.parquet",
        "part-00000.parquet",
        "part-00001.parquet",
    ]


def test_places_for_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").touch()
    (tmp_path / "empty.parquet").mkdir()
    (tmp_path / "m.parquet").touch()
    (tmp_path / "text").touch()
    write_manifest(
        Manifest.from_rows([{"image_id": "a", "image_uri": "/a", "labels": []}], CLASSES), str(tmp_path / "m")
    )
    for name in ("m", "m.parquet", "new", "new/m.parquet"):
        check_target(str(tmp_path / name))
    for name, message in (
        ("photos", "holds other things, such as a.jpg"),
        ("empty.parquet", "is a folder"),
        ("text", "is a file"),
        (".", "holds other things"),
    ):
        with pytest.raises(ValueError, match=message):
            check_target(str(tmp_path / name))
