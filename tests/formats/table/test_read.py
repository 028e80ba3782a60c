"""A table of URIs and labels becomes a draft."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from import_cases import make_image

from raypipe import uri
from raypipe.formats.draft import Draft
from raypipe.formats.labels import LabelReader
from raypipe.formats.table.read import TableOptions, read_table
from raypipe.imports.finish import Imported, ImportOptions, finish


def write(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text, encoding="utf-8")
    return str(tmp_path / name)


def json_lines(*records: Any) -> str:
    return "\n".join(map(json.dumps, records)) + "\n"


def read(source: str, **options: Any) -> Draft:
    return read_table(source, TableOptions(**options))


def column(source: str, name: str, **options: Any) -> list[Any]:
    return read(source, **options).table[name].to_pylist()  # type: ignore[no-any-return]


def test_csv(tmp_path: Path) -> None:
    text = '\ufeffimage_uri,labels,split\ns3://b/x 1.jpg,dog| cat ,train\n"sub/y,2.jpg",,val\n'
    draft = read(write(tmp_path, "t.csv", text))
    assert (draft.classes, draft.root) == (None, str(tmp_path))
    assert draft.table["image_id"].to_pylist() == [None, None]
    assert draft.table["image_uri"].to_pylist() == ["s3://b/x 1.jpg", "sub/y,2.jpg"]
    assert draft.table["labels"].to_pylist() == [["dog", "cat"], None]
    assert draft.table["split"].to_pylist() == ["train", "val"]
    assert draft.place(1) == f"{tmp_path}/t.csv, line 3"


@pytest.mark.parametrize(("empty", "expected"), [("null", None), ("none", [])])
def test_convention_empty_cell(tmp_path: Path, empty: Any, expected: Any) -> None:
    source = write(tmp_path, "t.csv", "image_uri,labels\na.jpg,cat\nb.jpg,\n")
    assert column(source, "labels", labels=LabelReader(empty=empty)) == [["cat"], expected]


def test_json_lines_tell_null_from_empty(tmp_path: Path) -> None:
    records = [
        {"image_uri": "a.jpg", "labels": ["cat"]},
        {"image_uri": "b.jpg", "labels": []},
        {"image_uri": "c.jpg", "labels": None},
        {"image_uri": "d.jpg"},
        {"image_uri": "e.jpg", "labels": "dog|cat"},
    ]
    source = write(tmp_path, "t.jsonl", json_lines(*records) + "\n")
    assert column(source, "labels") == [["cat"], [], None, None, ["dog", "cat"]]


def test_parquet_with_other_names(tmp_path: Path) -> None:
    table = pa.table(
        {"path": ["/a/1.jpg", "/b/2.jpg"], "tags": [["cat"], None], "key": [7, 8], "mask_uri": ["m/1.png", None]}
    )
    pq.write_table(table, tmp_path / "t.parquet")
    draft = read(str(tmp_path / "t.parquet"), image_column="path", label_column="tags", id_column="key")
    assert draft.table["image_id"].to_pylist() == ["7", "8"]
    assert draft.table["image_uri"].to_pylist() == ["/a/1.jpg", "/b/2.jpg"]
    assert draft.table["mask_uri"].to_pylist() == ["m/1.png", None]
    assert draft.table["labels"].to_pylist() == [["cat"], None]


def test_a_separator(tmp_path: Path) -> None:
    source = write(tmp_path, "t.csv", "image_uri,labels\na.jpg,cat;dog\n")
    assert column(source, "labels", labels=LabelReader(separator=";")) == [["cat", "dog"]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for name in ("Straße 1.jpg", "sub/b.c.png", "two.jpg", "two.png", "unnamed.jpg"):
        make_image(tmp_path / "photos" / name)
    return tmp_path / "photos"


def finished(source: str, *, images: Path, **options: Any) -> Imported:
    return finish(read_table(source), ImportOptions(images=str(images), **options))


def test_images_are_looked_up_in_a_folder(tmp_path: Path, photos: Path) -> None:
    names = ["Straße 1.jpg", "sub/b.c", "./two.png"]
    source = write(tmp_path, "t.csv", "file,labels\n" + "".join(f"{name},cat\n" for name in names))
    manifest, account = finished(source, images=photos)
    found = ["Straße 1.jpg", "sub/b.c.png", "two.png"]
    assert [uri.absolute(one) for one in manifest.table["image_uri"].to_pylist()] == [f"{photos}/{x}" for x in found]
    assert manifest.table["image_id"].to_pylist() == found
    assert "left out: 2 images that no row names: 'two.jpg', 'unnamed.jpg'" in account.lines


@pytest.mark.parametrize(("on_disk", "in_table"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_may_be_written_either_way(tmp_path: Path, on_disk: Any, in_table: Any) -> None:
    name = unicodedata.normalize(on_disk, "café.jpg")
    make_image(tmp_path / "photos" / name)
    source = write(tmp_path, "t.csv", f"image_uri,labels\n{unicodedata.normalize(in_table, 'café.jpg')},cat\n")
    (place,) = finished(source, images=tmp_path / "photos").manifest.table["image_uri"].to_pylist()
    assert uri.absolute(place) == f"{tmp_path}/photos/{name}"


def test_images_that_the_folder_lacks(tmp_path: Path, photos: Path) -> None:
    source = write(tmp_path, "t.csv", "image_uri,labels,image_id\nabsent.jpg,cat,7\nunnamed,cat,8\n")
    with pytest.raises(ValueError, match=r"1 of 2 images can't be used: 'absent\.jpg' .*line 2\) isn't there"):
        finished(source, images=photos)
    manifest, account = finished(source, images=photos, skip_missing=True)
    assert manifest.table["image_id"].to_pylist() == ["8"]
    assert "images: 1 found, 1 missing or unusable" in account.lines


def test_a_name_that_may_be_two_images_is_refused(tmp_path: Path, photos: Path) -> None:
    source = write(tmp_path, "t.csv", "image_uri,labels\ntwo,cat\n")
    with pytest.raises(ValueError, match=r"'two' .*may be two\.jpg or two\.png"):
        finished(source, images=photos)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "image_uri,lables\na.jpg,cat\n", r"none of the columns labels.*\(--label-column\).*'lables'"),
        ("t.csv", "picture,labels\na.jpg,cat\n", r"none of the columns image_uri.*\(--image-column\).*'picture'"),
        ("t.csv", "image_uri,labels\n", "has no rows"),
        ("t.csv", "", "has no rows"),
        ("t.csv", "image_uri,labels\na.jpg,cat,dog\n", "line 2: expected 2 cells, as in the header"),
        ("t.csv", "image_uri,labels\na.jpg\n", "line 2: expected 2 cells, as in the header"),
        ("t.csv", 'image_uri,labels\n"a.jpg,cat\n', "after line 2: unexpected end of data"),
        ("t.csv", "image_uri,labels,labels\na.jpg,cat,dog\n", "several columns 'labels'"),
        ("t.csv", "image_id,image_uri,labels\n,a.jpg,cat\n", "line 2: expected a text or a number as id in 'image_id'"),
        ("t.jsonl", '{"image_uri": "a", "labels": "x"}\n{', "line 2: not JSON"),
        ("t.jsonl", "[1]\n", r"object 0 \(counted from 0\): expected an object"),
        ("t.jsonl", "1\n", "line 1: expected an object"),
        (
            "t.jsonl",
            '{"image_uri": "a", "labels": [1.5]}\n',
            "line 1, column 'labels': expected class numbers or names",
        ),
        (
            "t.jsonl",
            '{"image_uri": 3, "labels": "x"}\n',
            "line 1: expected an image's name or URI in 'image_uri', got 3",
        ),
        ("t.jsonl", '{"images": [], "categories": []}\n', "is a COCO file: `raypipe import coco` reads it"),
        ("t.parquet", "no parquet", "not a Parquet file"),
        ("t.xlsx", "", r"expected a table that ends with .*, got .*\.xlsx"),
    ],
)
def test_bad_tables(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path, name, text))


LONG = "The table looks like one of a tag a row: add --long"


@pytest.mark.parametrize(
    ("text", "is_long"),
    [
        ("file,tag,confidence\na.jpg,cat,0.9\n", True),
        ("file,tag,Score\na.jpg,cat,0.9\n", True),
        ("file,tag\na.jpg,cat\na.jpg,dog\nb.jpg,cat\nb.jpg,dog\nc.jpg,cat\n", True),
        ("file,tag\na.jpg,cat\na.jpg,dog\nb.jpg,cat\n", False),
    ],
)
def test_the_refusal_of_a_long_table_names_the_option(tmp_path: Path, text: str, is_long: bool) -> None:
    with pytest.raises(ValueError, match="--label-column") as error:
        read(write(tmp_path, "t.csv", text))
    assert (LONG in str(error.value)) == is_long


@pytest.mark.parametrize(
    ("header", "options", "is_told"),
    [
        ("file,tag,confidence", {"label_column": "tag"}, True),
        ("file,label,score", {}, True),
        ("file,tag,sure", {"label_column": "tag"}, False),
        ("file,label,score", {"label_column": "score"}, False),
        ("file,label,score", {"multi_hot": ("score",)}, False),
    ],
)
def test_a_column_of_confidences_that_is_not_read(
    tmp_path: Path, header: str, options: dict[str, Any], is_told: bool
) -> None:
    notes = " ".join(read(write(tmp_path, "t.csv", f"{header}\na.jpg,cat,1\na.jpg,dog,0\n"), **options).notes)
    assert (
        "isn't read, so a tag of any confidence becomes a label: where each row is one tag, --long" in notes
    ) == is_told


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no table .*absent\.csv"):
        read(str(tmp_path / "absent.csv"))
    (tmp_path / "t.csv").write_bytes(b"image_uri,labels\n\xe9.jpg,cat\n")
    with pytest.raises(ValueError, match=r"isn't utf-8: byte 0xe9 in line 2.*--encoding cp1252"):
        read(str(tmp_path / "t.csv"))
