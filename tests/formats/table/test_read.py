"""A table of URIs and labels becomes a manifest."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.formats.table.read import import_table


def write(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def json_lines(*records: Any) -> str:
    return "\n".join(map(json.dumps, records)) + "\n"


def column(uri: str, name: str, **options: Any) -> list[Any]:
    return import_table(uri, **options).table[name].to_pylist()  # type: ignore[no-any-return]


def test_csv(tmp_path: Path) -> None:
    text = '\ufeffimage_uri,labels,split\ns3://b/x 1.jpg,dog| cat ,train\n"sub/y,2.jpg",,val\n'
    manifest = import_table(write(tmp_path, "t.csv", text))
    assert manifest.classes == ("cat", "dog")
    assert manifest.table["image_id"].to_pylist() == ["x 1", "y,2"]
    assert manifest.table["image_uri"].to_pylist() == ["s3://b/x 1.jpg", f"{tmp_path}/sub/y,2.jpg"]
    assert manifest.table["labels"].to_pylist() == [["dog", "cat"], None]
    assert manifest.table["split"].to_pylist() == ["train", "val"]


@pytest.mark.parametrize(("empty_labels", "expected"), [("null", None), ("none", [])])
def test_convention_empty_cell(tmp_path: Path, empty_labels: Any, expected: Any) -> None:
    uri = write(tmp_path, "t.csv", "image_uri,labels\na.jpg,cat\nb.jpg,\n")
    assert column(uri, "labels", empty_labels=empty_labels) == [["cat"], expected]


def test_json_lines_tell_null_from_empty(tmp_path: Path) -> None:
    records = [
        {"image_uri": "a.jpg", "labels": ["cat"]},
        {"image_uri": "b.jpg", "labels": []},
        {"image_uri": "c.jpg", "labels": None},
        {"image_uri": "d.jpg"},
        {"image_uri": "e.jpg", "labels": "dog|cat"},
    ]
    uri = write(tmp_path, "t.jsonl", json_lines(*records) + "\n")
    assert column(uri, "labels") == [["cat"], [], None, None, ["dog", "cat"]]


def test_parquet_with_other_names(tmp_path: Path) -> None:
    table = pa.table(
        {"path": ["/a/1.jpg", "/b/2.jpg"], "tags": [["cat"], None], "key": [7, 8], "mask_uri": ["m/1.png", None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    manifest = import_table(str(tmp_path / "t.parquet"), image_column="path", label_column="tags", id_column="key")
    assert manifest.table["image_id"].to_pylist() == ["7", "8"]
    assert manifest.table["image_uri"].to_pylist() == ["/a/1.jpg", "/b/2.jpg"]
    assert manifest.table["mask_uri"].to_pylist() == [f"{tmp_path}/m/1.png", None]
    assert manifest.table["labels"].to_pylist() == [["cat"], None]


def test_ids_are_the_uris_where_names_repeat(tmp_path: Path) -> None:
    uri = write(tmp_path, "t.csv", "image_uri,labels\na/1.jpg,cat\nb/1.jpg,cat\n")
    assert column(uri, "image_id") == ["a/1.jpg", "b/1.jpg"]


def test_separator_and_classes(tmp_path: Path) -> None:
    uri = write(tmp_path, "t.csv", "image_uri,labels\na.jpg,cat;dog\n")
    manifest = import_table(uri, separator=";", classes=["dog", "cat", "cow"])
    assert manifest.classes == ("dog", "cat", "cow")
    assert manifest.table["labels"].to_pylist() == [["cat", "dog"]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("Straße 1.jpg", "sub/b.c.png", "two.jpg", "two.png", "unnamed.jpg"):
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    return tmp_path / "photos"


def test_images_are_looked_up_in_a_folder(tmp_path: Path, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ["Straße 1.jpg", "sub/b.c", "./two.png", "s3://b/x.jpg"]
    uri = write(tmp_path, "t.csv", "file,labels\n" + "".join(f"{name},cat\n" for name in names))
    with caplog.at_level("WARNING"):
        manifest = import_table(uri, images=str(photos), image_column="file")
    found = [f"{photos}/{name}" for name in ("Straße 1.jpg", "sub/b.c.png", "two.png")]
    assert manifest.table["image_uri"].to_pylist() == [*found, "s3://b/x.jpg"]
    assert manifest.table["image_id"].to_pylist() == ["Straße 1", "b.c", "two", "x"]
    assert "0 rows without an image left out, 2 images that no row names" in caplog.text


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_either_way(tmp_path: Path, on_disk: Any, in_table: Any) -> None:
    (tmp_path / "photos").mkdir()
    name = unicodedata.normalize(on_disk, "café.jpg")
    (tmp_path / "photos" / name).touch()
    uri = write(tmp_path, "t.csv", f"image_uri,labels\n{unicodedata.normalize(in_table, 'café.jpg')},cat\n")
    assert column(uri, "image_uri", images=str(tmp_path / "photos")) == [f"{tmp_path}/photos/{name}"]


def test_images_that_the_folder_lacks(tmp_path: Path, photos: Path) -> None:
    uri = write(tmp_path, "t.csv", "image_uri,labels,image_id\nabsent.jpg,cat,7\nunnamed,cat,8\n")
    with pytest.raises(ValueError, match=r"1 of 2 images aren't below .*'absent.jpg'.*there are \['Straße 1.jpg'"):
        import_table(uri, images=str(photos))
    assert column(uri, "image_id", images=str(photos), skip_missing=True) == ["8"]


def test_a_name_that_may_be_two_images_is_refused(tmp_path: Path, photos: Path) -> None:
    uri = write(tmp_path, "t.csv", "image_uri,labels\ntwo,cat\n")
    with pytest.raises(ValueError, match=r"'two' may be two\.jpg or two\.png"):
        import_table(uri, images=str(photos))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        (
            "t.csv",
            "image_uri,label\na.jpg,cat\n",
            "no column 'labels' \\(`label_column`\\): did you mean 'label'",
        ),
        ("t.csv", "uri,labels\na.jpg,cat\n", "no column 'image_uri'"),
        ("t.csv", "image_uri,labels\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "image_uri,labels\na.jpg,cat,dog\n", "line 2: expected 2 cells, as in the header"),
        ("t.csv", "image_uri,labels\na.jpg\n", "line 2: expected 2 cells, as in the header"),
        ("t.csv", 'image_uri,labels\n"a.jpg,cat\n', "after line 1: unexpected end of data"),
        (
            "t.csv",
            "image_uri,labels\na.jpg,cat\n,cat\n",
            r"row 1 \(counted from 0\): expected a URI in 'image_uri', got ''",
        ),
        ("t.csv", "image_uri,labels\na.jpg,\n", "no image has a label"),
        ("t.csv", "image_id,image_uri,labels\nx,a.jpg,cat\nx,b.jpg,cat\n", "given more than once"),
        ("t.csv", "image_id,image_uri,labels\n,a.jpg,cat\n", "no image_id"),
        ("t.jsonl", '{"image_uri": "a"}\n{', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", "line 1: expected an object"),
        ("t.jsonl", '{"image_uri": "a", "labels": [1]}\n', "non-empty strings|doesn't fit"),
        (
            "t.jsonl",
            '{"image_uri": "a", "labels": 1}\n',
            "row 0 .*: expected a list of names or a text in 'labels', got 1",
        ),
        ("t.parquet", "no parquet", "not a Parquet file"),
        ("t.xlsx", "", r"expected a table that ends with .*, got .*\.xlsx"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        import_table(write(tmp_path, name, text))


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        import_table(str(tmp_path / "absent.csv"))
    (tmp_path / "t.csv").write_bytes(b"image_uri,labels\n\xe9.jpg,cat\n")
    with pytest.raises(ValueError, match="is not UTF-8"):
        import_table(str(tmp_path / "t.csv"))
