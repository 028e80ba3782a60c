from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.data.parts import write_manifest
from raypipe.pipelines.context import Context, open_context
from raypipe.streams.collect import collect, count


def test_seeds_are_needed_for_training_and_for_masks(synthetic: tuple[str, Manifest], tmp_path: Path) -> None:
    base = [f"manifest={synthetic[0]}", f"out={tmp_path}"]
    context = open_context(load_config("preset: demo", [*base, "splits.masks=[val]"]))
    assert count(context.seed_rows()) == 24
    assert count(context.rows(["val"])) == 6
    assert count(open_context(load_config("preset: demo", [*base, "splits.masks=null"])).seed_rows()) == 24


def make_context(tmp_path: Path, *splits: str | None) -> Context:
    """A context of a row of each split, each in a part of its own."""
    rows = [
        {"image_id": str(number), "image_uri": f"{number}.jpg", "labels": [], "split": split}
        for number, split in enumerate(splits)
    ]
    write_manifest(Manifest.from_rows(rows, ["cat"]), str(tmp_path / "manifest"), rows_per_part=1)
    return open_context(load_config("preset: demo", [f"manifest={tmp_path}/manifest", f"out={tmp_path}/out"]))


def test_rows_of_splits_come_from_all_parts(tmp_path: Path) -> None:
    context = make_context(tmp_path, "train", "val", None, "train")
    assert collect(context.rows(["train"]))["image_id"].to_pylist() == ["0", "3"]
    assert collect(context.rows(None, columns=["split"]))["split"].to_pylist() == ["train", "val", None, "train"]


@pytest.mark.parametrize("splits", [[], ["val", "absent"]])
def test_splits_that_are_not_there_are_named(tmp_path: Path, splits: list[str]) -> None:
    with pytest.raises(ValueError, match=r"no such split: .*The manifest has \['train', 'val'\]"):
        make_context(tmp_path, "train", "val").rows(splits)


def test_a_split_that_statistics_do_not_name_is_found(tmp_path: Path) -> None:
    rows = [{"image_id": split, "image_uri": "i.jpg", "labels": [], "split": split} for split in "abc"]
    write_manifest(Manifest.from_rows(rows, ["cat"]), str(tmp_path / "m.parquet"))
    context = open_context(load_config("preset: demo", [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out"]))
    assert collect(context.rows(["b"]))["image_id"].to_pylist() == ["b"]


def test_rows_without_supervision_are_weak(tmp_path: Path) -> None:
    rows = [
        {"image_id": str(number), "image_uri": "i.jpg", "labels": [], "supervision": kind}
        for number, kind in enumerate(("mask", None, "none"))
    ]
    write_manifest(Manifest.from_rows(rows, ["cat"]), str(tmp_path / "m.parquet"))
    context = open_context(load_config("preset: demo", [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out"]))
    assert collect(context.supervised_rows(None))["supervision"].to_pylist() == ["mask", "weak", "none"]
