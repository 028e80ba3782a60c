from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.config.fitting import Fingerprint
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


def test_splits_that_are_not_learned_from_do_not_count(tmp_path: Path, jpeg: bytes) -> None:
    """Epochs follow from the images of `splits.train`; where the manifest lacks it, all are learned from."""
    (tmp_path / "a.jpg").write_bytes(jpeg)
    rows = [
        {"image_id": str(index), "image_uri": f"{name}.jpg", "labels": labels, "split": split}
        for index, (name, labels, split) in enumerate(
            [("a", ["cat"], "train"), ("missing", ["dog"], "val"), ("missing", ["dog"], None), ("a", None, "new")]
        )
    ]
    write_manifest(Manifest.from_rows(rows, ("cat", "dog")), str(tmp_path / "m.parquet"))

    def found(splits: str) -> Fingerprint:
        config = load_config(overrides=[f"manifest={tmp_path}/m.parquet", "out=o", f"splits.train={splits}"])
        return read_fingerprint(open_context(config))

    assert found("[train]").class_images == {"cat": 1, "dog": 0}
    assert (found("[train]").num_images, found("[train]").splits) == (1, {"train", "val", "new"})
    assert found("[train,val]").num_images == 2
    assert found("[train,other]").num_images == found("null").num_images == 3
    with pytest.raises(ValueError, match=r"no row of splits.train=\['new'\] has usable labels"):
        found("[new]")


def test_a_set_without_labels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no row has usable labels"):
        read_fingerprint(open_manifest(tmp_path, [None], ["a.jpg"]))
