from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.stages.decode import DecodeImages


def decode(uri: str | None, labels: list[str] | None = None) -> dict[str, object]:
    stage = DecodeImages(classes=("cat", "dog"), max_side=50)
    schema = pa.schema(
        [
            pa.field("image_id", pa.string()),
            pa.field("image_uri", pa.string()),
            pa.field("labels", pa.list_(pa.string())),
        ]
    )
    batch = pa.Table.from_pylist([{"image_id": "a", "image_uri": uri, "labels": labels}], schema=schema)
    return dict(stage(batch).to_pylist()[0])


@pytest.fixture
def image_uri(tmp_path: Path, jpeg: bytes) -> str:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    return str(tmp_path / "a.jpg")


def test_bytes_travel_untouched_and_sizes_are_the_working_ones(image_uri: str, jpeg: bytes) -> None:
    row = decode(image_uri, ["dog", "cat"])
    assert row["image"] == jpeg
    assert (row["original_height"], row["original_width"]) == (61, 83)
    assert (row["height"], row["width"]) == (37, 50)
    assert row["class_ids"] == [1, 2]
    assert row["error_stage"] is None


def test_empty_labels_are_legal(image_uri: str) -> None:
    row = decode(image_uri, [])
    assert row["class_ids"] == []
    assert row["error_stage"] is None


@pytest.mark.parametrize(
    ("labels", "reason"), [(None, "labels are null"), (["dogg"], "unknown label 'dogg'.*did you mean 'dog'")]
)
def test_bad_labels_are_quarantined(image_uri: str, labels: list[str] | None, reason: str) -> None:
    row = decode(image_uri, labels)
    assert row["error_stage"] == "DecodeImages"
    with pytest.raises(ValueError, match=reason):
        raise ValueError(row["error_reason"])


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
    row = decode(str(tmp_path / "b.jpg"), ["cat"])
    assert row["error_stage"] == "DecodeImages"
    assert reason in str(row["error_reason"])


def test_folder_and_missing_uri_are_quarantined(tmp_path: Path) -> None:
    assert "IsADirectoryError" in str(decode(str(tmp_path), ["cat"])["error_reason"])
    assert "image_uri is empty" in str(decode(None, ["cat"])["error_reason"])
