from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.doctor.fingerprint import read_fingerprint
from raypipe.pipelines.context import Context, open_context


def open_manifest(tmp_path: Path, labels: list[list[str] | None], uris: list[str]) -> Context:
    rows = [
        {"image_id": str(index), "image_uri": uri, "labels": each, "split": "own"}
        for index, (each, uri) in enumerate(zip(labels, uris, strict=True))
    ]
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), str(tmp_path / "m.parquet"))
    return open_context(load_config(overrides=[f"manifest={tmp_path}/m.parquet", "out=o"]))


def test_what_is_counted(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    (tmp_path / "b.jpg").write_bytes(b"no image")
    labels: list[list[str] | None] = [["cat"], ["cat", "dog", "dog"], [], None, ["cow"]]
    found = read_fingerprint(open_manifest(tmp_path, labels, ["a.jpg", "a.jpg", "b.jpg", "missing.jpg", "a.jpg"]))
    assert found.num_images == 3, "no image without labels, or with those of another class"
    assert found.class_images == {"cat": 2, "dog": 1}
    assert found.long_side == 83
    assert found.splits == {"own"}


def test_images_that_cannot_be_read_have_no_size(tmp_path: Path) -> None:
    assert read_fingerprint(open_manifest(tmp_path, [["cat"]], ["missing.jpg"])).long_side is None


def test_a_set_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row has usable labels"):
        read_fingerprint(open_manifest(tmp_path, [None], ["a.jpg"]))
