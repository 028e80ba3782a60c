"""Parquet files, read back by Hugging Face datasets."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from export_rows import CLASSES, MASKS, SPLITS, make_rows
from PIL import Image

from raypipe.formats.hugging_face import write as hugging_face

Export = Callable[..., Path]


@pytest.fixture(autouse=True)
def _no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_datasets_reads_the_same_masks(export: Export, tmp_path_factory: pytest.TempPathFactory, jpeg: bytes) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [replace(row, image=jpeg) for row in make_rows()]
    rows[1] = replace(rows[1], confidence=None)
    root = export("huggingface", rows, copy_images=True)
    cache = str(tmp_path_factory.mktemp("cache"))
    files = {split: str(root / f"data/{split}-*.parquet") for split in SPLITS}
    found = datasets.load_dataset("parquet", data_files=files, cache_dir=cache)
    seen = {}
    for split in SPLITS:
        features = found[split].features
        assert all(isinstance(features[name], datasets.Image) for name in ("image", "mask", "confidence"))
        assert features["classes"].feature.names == ["background", *CLASSES]
        for row in found[split]:
            assert isinstance(row["image"], Image.Image)
            assert row["image"].size == (83, 61)
            mask = np.array(row["mask"])
            assert row["classes"] == [value for value in np.unique(mask).tolist() if 0 < value < 255]
            assert (row["height"], row["width"]) == mask.shape
            if row["confidence"] is not None:
                assert set(np.unique(np.array(row["confidence"]))) == {51}
            seen[row["image_id"]] = mask
    assert set(seen) == set(MASKS)
    for image_id, mask in MASKS.items():
        np.testing.assert_array_equal(seen[image_id], mask, err_msg=image_id)


def test_images_that_are_not_copied_are_opened_where_they_are(
    export: Export, tmp_path_factory: pytest.TempPathFactory, jpeg: bytes
) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a.jpg").write_bytes(jpeg)
    row = replace(make_rows()[0], image_uri=f"{folder}/a.jpg")
    root = export("huggingface", [row])
    (loaded,) = datasets.load_dataset(
        str(root), cache_dir=str(folder), split="train" if row.split == "train" else "val"
    )
    assert loaded["image"].size == (83, 61)
    assert loaded["image_uri"] == row.image_uri


def test_files_and_groups_stay_small(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hugging_face, "BYTES_PER_FILE", 1)
    monkeypatch.setattr(hugging_face, "ROWS_PER_GROUP", 2)
    root = export("huggingface")
    assert [path.name for path in sorted((root / "data").iterdir())] == [
        f"{split}-0000{number}.parquet" for split in SPLITS for number in range(2)
    ]
    sizes = [pq.ParquetFile(path).metadata.num_rows for path in sorted((root / "data").iterdir())]
    assert sizes == [2, 1, 2, 1]
