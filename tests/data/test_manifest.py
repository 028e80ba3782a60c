"""The manifest: what is refused, by which words, and that what was written comes back."""

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe import schema
from raypipe.data.manifest import Manifest, UnknownLabel, class_ids_of
from raypipe.data.parts import read_manifest, write_manifest

CLASSES = ("cat", "dog", "zebra")


def row(image_id: Any, **columns: Any) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "image_uri": f"s3://bucket/{image_id}.jpg",
        "labels": ["cat"],
        "split": "train",
    } | columns


def test_round_trip(tmp_path: Path) -> None:
    rows = [
        row("a/b c.jpg", labels=["cat", "dog"], mask_uri="s3://bucket/m.png"),
        row("ünïcode ☃", labels=[]),
        row("../x", labels=None, split=None),
    ]
    manifest = Manifest.from_rows(rows, CLASSES)
    write_manifest(manifest, str(tmp_path / "new folder" / "manifest.parquet"))
    again = read_manifest(str(tmp_path / "new folder" / "manifest.parquet"))
    assert again.table.equals(manifest.table)
    assert again.classes == CLASSES
    assert len(again) == 3
    assert again.table["labels"].to_pylist() == [["cat", "dog"], [], None]
    assert again.table.column_names == schema.MANIFEST.names


def test_convention_class_ids_count_from_one() -> None:
    assert class_ids_of(["zebra", "cat", "zebra"], CLASSES) == [1, 3]
    assert class_ids_of([], CLASSES) == []


@pytest.mark.parametrize(
    ("label", "hint"),
    [("zebras", "did you mean 'zebra'"), ("Cat", "did you mean 'cat'"), ("x", "known are cat, dog"), (None, "None")],
)
def test_unknown_label(label: Any, hint: str) -> None:
    with pytest.raises(UnknownLabel, match=hint):
        class_ids_of(["cat", label], CLASSES)


def test_select() -> None:
    manifest = Manifest.from_rows(
        [row("a"), row("b", split="val"), row("c", split=None), row("d", split="train_aug")], CLASSES
    )
    assert manifest.select(splits=None) is manifest
    assert manifest.select(splits=["train_aug", "train"]).table["image_id"].to_pylist() == ["a", "d"]
    with pytest.raises(
        ValueError, match=r"no such split: \['trian'\]. The manifest has \['train', 'train_aug', 'val'\]"
    ):
        manifest.select(splits=["train", "trian"])
    with pytest.raises(ValueError, match="no such split"):
        manifest.select(splits=[])


def test_limit_is_per_split() -> None:
    rows = [row("a"), row("b", split="val"), row("c"), row("d", split=None), row("e", split="val"), row("f")]
    limited = Manifest.from_rows(rows, CLASSES).limit(1)
    assert limited.table["image_id"].to_pylist() == ["a", "b", "d"]
    assert limited.classes == CLASSES


def test_select_without_any_split() -> None:
    with pytest.raises(ValueError, match="no splits: leave the option out"):
        Manifest.from_rows([row("a", split=None)], CLASSES).select(splits=["train"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row("a"), row("b"), row("a")], r"1 image_id is given more than once, such as \['a'\]"),
        ([row("a"), row("")], "1 row has no image_id, first row 1"),
        ([row("a"), row(None), row("  ")], "2 rows have no image_id, first row 1"),
        ([{"image_uri": "x", "labels": []}], "no image_id"),
        ([row("a", label="cat")], "unknown column 'label': did you mean 'labels'"),
        ([row("a", labels="cat")], "expected a list of class names as labels, got the text 'cat'"),
        ([row("a", labels=[3])], "doesn't fit the manifest's columns"),
        ([row("a", supervision="masks")], "unknown supervision 'masks': did you mean 'mask'"),
    ],
)
def test_bad_rows(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest.from_rows(rows, CLASSES)


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "no classes"),
        (["cat", ""], "non-empty strings"),
        (["cat", 3], "non-empty strings"),
        (["cat", "dog", "cat"], r"occur twice: \['cat'\]"),
        (
            [f"c{i}" for i in range(300)],
            "300 classes, but 8-bit masks hold 254; those over the limit begin with c254, c255",
        ),
    ],
)
def test_bad_classes(classes: list[Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest.from_rows([row("a")], classes)


def test_254_classes_are_fine() -> None:
    classes = [f"c{i}" for i in range(254)]
    assert class_ids_of(["c253"], Manifest.from_rows([row("a")], classes).classes) == [254]


def write_table(table: pa.Table, path: Path, *, classes: bytes | None = b'["cat", "dog"]') -> str:
    metadata = {} if classes is None else {schema.CLASSES_KEY: classes}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return str(path)


def test_a_table_written_by_pandas_is_read(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {"image_id": [7, 8], "image_uri": ["s3://b/7", "s3://b/8"], "labels": [["cat"], []], "extra": [1.0, 2.0]}
    )
    manifest = read_manifest(write_table(pa.Table.from_pandas(frame), tmp_path / "m.parquet"))
    assert manifest.table["image_id"].to_pylist() == ["7", "8"]
    assert manifest.table["split"].to_pylist() == [None, None]
    assert "extra" not in manifest.table.column_names


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image_id": ["a"], "image_uri": ["b"]}, r"lacks \['labels'\]; it has \['image_id', 'image_uri'\]"),
        (
            {"image_id": ["a"], "image_uri": ["b"], "labels": ["cat"]},
            r"column 'labels': expected list<.*>, got string",
        ),
        ({"image_id": [], "image_uri": [], "labels": []}, "has no rows"),
    ],
)
def test_bad_tables(tmp_path: Path, columns: dict[str, list[Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(write_table(pa.table(columns), tmp_path / "m.parquet"))
    assert "m.parquet" in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "image_uri": ["b"], "labels": [["cat"]]})
    with pytest.raises(ValueError, match="doesn't name its classes"):
        read_manifest(write_table(table, tmp_path / "m.parquet", classes=None))
    with pytest.raises(ValueError, match=r"m\.parquet: .*Expecting value"):
        read_manifest(write_table(table, tmp_path / "m.parquet", classes=b"cat, dog"))
    (tmp_path / "not.parquet").write_text("image_id,labels\n")
    with pytest.raises(ValueError, match="not a Parquet file"):
        read_manifest(str(tmp_path / "not.parquet"))
    with pytest.raises(FileNotFoundError):
        read_manifest(str(tmp_path / "absent.parquet"))


def test_damaged_manifest(tmp_path: Path) -> None:
    rows = [row(f"image {number}") for number in range(50)]
    path = tmp_path / "m.parquet"
    write_manifest(Manifest.from_rows(rows, CLASSES), str(path))
    data = bytearray(path.read_bytes())
    data[20:200] = bytes(180)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"m\.parquet is not a Parquet file, or a damaged one"):
        read_manifest(str(path))


def test_texts_that_are_no_utf_8(tmp_path: Path) -> None:
    ids = pa.array([b"a", b"caf\xe9"]).view(pa.string())
    table = pa.table({"image_id": ids, "image_uri": ["x", "y"], "labels": [["cat"], []]})
    with pytest.raises(ValueError, match=r"column 'image_id': .*UTF8"):
        read_manifest(write_table(table, tmp_path / "m.parquet"))


def test_classes_that_are_no_list(tmp_path: Path) -> None:
    table = pa.table({"image_id": ["a"], "image_uri": ["b"], "labels": [["cat"]]})
    with pytest.raises(ValueError, match=r"m\.parquet: "):
        read_manifest(write_table(table, tmp_path / "m.parquet", classes=b"3"))


def test_relative_uris_count_from_the_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [
        row("a", image_uri="images/a.jpg", mask_uri="../masks/a#1.png"),
        row("b", image_uri="/abs/b.jpg"),
        row("c", image_uri="s3://bucket/c.jpg"),
        row("d", image_uri=None),
    ]
    write_manifest(Manifest.from_rows(rows, CLASSES), str(tmp_path / "data" / "manifest.parquet"))
    expected = [f"{tmp_path}/data/images/a.jpg", "/abs/b.jpg", "s3://bucket/c.jpg", None]
    assert read_manifest(str(tmp_path / "data/manifest.parquet")).table["image_uri"].to_pylist() == expected
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest("data/manifest.parquet")
    assert manifest.table["image_uri"].to_pylist() == expected
    assert manifest.table["mask_uri"].to_pylist() == [f"{tmp_path}/masks/a#1.png", None, None, None]


def test_relative_uris_on_an_object_store() -> None:
    write_manifest(
        Manifest.from_rows([row("a", image_uri="images/a.jpg")], CLASSES), "memory://bucket/data/manifest.parquet"
    )
    uris = read_manifest("memory://bucket/data/manifest.parquet").table["image_uri"].to_pylist()
    assert uris == ["memory:///bucket/data/images/a.jpg"] or uris == ["memory://bucket/data/images/a.jpg"]
