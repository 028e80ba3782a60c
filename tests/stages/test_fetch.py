from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe import storage
from raypipe.stages.fetch import FetchImages

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("image_uri", pa.string()),
        pa.field("labels", pa.list_(pa.string())),
        pa.field("error_stage", pa.string()),
    ]
)


def fetch(*rows: tuple[str | None, list[str] | None], **options: Any) -> list[dict[str, Any]]:
    stage = FetchImages(**{"classes": ("cat", "dog"), **options})
    table = [{"image_id": str(number), "image_uri": uri, "labels": labels} for number, (uri, labels) in enumerate(rows)]
    found: list[dict[str, Any]] = stage(pa.Table.from_pylist(table, schema=SCHEMA)).to_pylist()
    return found


@pytest.fixture
def image_uri(tmp_path: Path, jpeg: bytes) -> str:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    return str(tmp_path / "a.jpg")


def test_bytes_travel_untouched_and_labels_become_class_ids(image_uri: str, jpeg: bytes) -> None:
    (row,) = fetch((image_uri, ["dog", "cat"]))
    assert (row["image"], row["class_ids"], row["error_stage"]) == (jpeg, [1, 2], None)


@pytest.mark.parametrize(
    ("labels", "options", "class_ids"),
    [
        ([], {}, []),
        (None, {"labels_needed": False}, []),
        (["dog"], {"labels_needed": False}, [2]),
        (["unicorn"], {"classes": None}, []),
    ],
)
def test_images_without_a_class(
    image_uri: str, labels: list[str] | None, options: dict[str, Any], class_ids: list[int]
) -> None:
    (row,) = fetch((image_uri, labels), **options)
    assert (row["class_ids"], row["error_reason"]) == (class_ids, None)


@pytest.mark.parametrize(
    ("labels", "reason"), [(None, "labels are null"), (["dogg"], "unknown label 'dogg': did you mean 'dog'")]
)
def test_bad_labels_are_quarantined(image_uri: str, labels: list[str] | None, reason: str) -> None:
    (row,) = fetch((image_uri, labels))
    assert row["error_stage"] == "FetchImages"
    assert reason in row["error_reason"]


def test_labels_are_read_only_where_they_matter() -> None:
    assert "labels" in FetchImages(classes=()).reads
    assert "labels" not in FetchImages(classes=None).reads


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "FileNotFoundError"),
        (b"", "empty"),
        (b"no image", "not an image"),
        (b"\xff\xd8\xff\xe0junk", "ImageError"),
    ],
)
def test_bad_files_are_quarantined(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "b.jpg").write_bytes(content)
    (row,) = fetch((str(tmp_path / "b.jpg"), ["cat"]))
    assert (row["error_stage"], row["image"]) == ("FetchImages", None)
    assert reason in row["error_reason"]


def test_folder_and_missing_uri_are_quarantined(tmp_path: Path) -> None:
    folder, missing, empty = fetch((str(tmp_path), ["cat"]), (None, ["cat"]), ("", ["cat"]))
    assert "IsADirectoryError" in folder["error_reason"]
    assert "image_uri is empty" in missing["error_reason"]
    assert "image_uri is empty" in empty["error_reason"]


def test_files_of_all_rows_are_fetched_at_once(image_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    read_many = storage.read_many

    def noted(uris: Iterable[str]) -> dict[str, bytes | Exception]:
        asked.append(sorted(uris))
        return read_many(asked[-1])

    monkeypatch.setattr(storage, "read_many", noted)
    absent = image_uri + "x"
    stages = [row["error_stage"] for row in fetch((image_uri, []), (absent, []), (None, []), (image_uri, []))]
    assert stages == [None, "FetchImages", "FetchImages", None]
    assert asked == [[image_uri, absent]]


def test_rows_in_error_are_not_fetched(image_uri: str) -> None:
    rows = [{"image_id": "a", "image_uri": image_uri, "labels": [], "error_stage": "Earlier"}]
    (row,) = FetchImages(classes=())(pa.Table.from_pylist(rows, schema=SCHEMA)).to_pylist()
    assert (row["error_stage"], row["image"]) == ("Earlier", None)
