"""Training crops of scenes: which parts they show, and whether their targets are those of the same pixels."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("tifffile")

from rasters import tiff
from stream_outputs import write_masks, write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import Images
from raypipe.data.images import encode_png
from raypipe.schema import SEEDS, columns
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.shard_crops import LoadAffinityCrops, LoadSegmenterCrops

HEIGHT, WIDTH = 320, 404
IMAGES = Images(tile=64, max_side=128)
ARGS: dict[str, Any] = {
    "crop_size": 64,
    "fill": (1, 2, 3),
    "jitter": (0.0, 0.0, 0.0, 0.0),
    "seed": 0,
    "max_side": 128,
    "windows": IMAGES,
}


def places() -> NDArray[np.uint8]:
    """An image whose colour says where a cell of 8 pixels lies."""
    rows, columns = np.indices((HEIGHT, WIDTH)) // 8
    return np.stack([4 * rows, 4 * columns, np.full_like(rows, 200)], axis=2).astype(np.uint8)


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "a.tif").write_bytes(tiff(places(), photometric="rgb"))
    return {"image_id": "a", "epoch": 0, "repeat": 0, "image_uri": str(tmp_path / "a.tif"), "labels": ["dog"]}


def crop_of(out: dict[str, Any], side: int = 64) -> NDArray[np.uint8]:
    return np.frombuffer(out["crop"], np.uint8).reshape(side, side, 3)


def test_a_montage_holds_the_whole_scene_and_three_tiles(row: dict[str, Any]) -> None:
    stage = LoadClassifierCrops(classes=("cat", "dog"), long_side=(64, 64), **ARGS)
    wide = 0
    for epoch in range(8):
        out = stage.process(row | {"epoch": epoch})
        assert np.frombuffer(out["target"], np.uint8).tolist() == [0, 1]
        crop = crop_of(out).astype(int)
        spans = []
        for quarter in (crop[:32, :32], crop[:32, 32:], crop[32:, :32], crop[32:, 32:]):
            inside = quarter[quarter[..., 2] > 150]
            spans.append(np.ptp(inside[:, 1]) / 4 * 8)
        # The whole scene spans 404 columns in 32 pixels, a tile of 64 pixels in its own scale at most 32.
        assert sorted(span > 300 for span in spans) == [False, False, False, True], spans
        assert sorted(spans)[2] <= 40
        wide += spans[0] > 300
    assert wide < 8  # the whole isn't always in the same corner


def test_crops_of_scenes_depend_on_seed_epoch_and_id_alone(row: dict[str, Any]) -> None:
    stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS)
    (again,) = stage.process_all([row])
    assert again["crop"] == stage.process(row)["crop"] != stage.process(row | {"epoch": 1})["crop"]


def test_ordinary_images_are_cropped_as_ever(row: dict[str, Any], jpeg: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    photo = row | {"image_uri": str(tmp_path / "a.jpg")}
    stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS)
    plain = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS | {"windows": None})
    assert stage.process(photo)["crop"] == plain.process(photo)["crop"]


def test_a_raster_of_chosen_bands_is_reduced_without_tiles(row: dict[str, Any]) -> None:
    options = ARGS | {"windows": Images(bands=(2, 1, 3), max_side=128)}
    stage = LoadClassifierCrops(classes=("dog",), long_side=(64, 64), **options)
    crop = crop_of(stage.process(row)).astype(int)
    inside = crop[crop[..., 2] > 150]
    assert np.ptp(inside[:, 0]) > 180  # red is what was green, and all of the scene is there


def test_a_trimap_goes_with_its_tile(row: dict[str, Any], tmp_path: Path) -> None:
    cells = np.add.outer(np.arange(HEIGHT // 8), np.arange(-(-WIDTH // 8))) % 200
    trimap = {"image_id": "a", "trimap": encode_png(cells.astype(np.uint8))}
    write_outputs(str(tmp_path), columns(SEEDS, "image_id", "trimap"), [trimap])
    (shard,) = tmp_path.glob("shards/*/*.parquet")
    stage = LoadAffinityCrops(seeds=Artifact("seeds", "s"), **ARGS)
    stage.setup("cpu")
    seen = set()
    for epoch in range(20):
        out = stage.process(row | {"shard_uri": str(shard), "shard_row": 0, "epoch": epoch})
        crop, target = crop_of(out).astype(int), np.frombuffer(out["target"], np.uint8).reshape(8, 8)
        found = (crop[4::8, 4::8, 0] + crop[4::8, 4::8, 1]) // 4
        inside = target != 255
        assert inside.mean() > 0.7
        assert np.array_equal(found[inside] % 200, target[inside])
        seen.add(out["crop"])
    assert len(seen) > 10


def test_a_mask_goes_with_its_tile(row: dict[str, Any], tmp_path: Path) -> None:
    mask = (places()[..., 1] // 4 % 200).astype(np.uint8)
    made = {"image_id": "a", "mask": encode_png(mask), "confidence": encode_png(np.full_like(mask, 255))}
    write_masks(str(tmp_path), [made | {"height": HEIGHT, "width": WIDTH}])
    (shard,) = tmp_path.glob("shards/*/*.parquet")
    (tmp_path / "truth.png").write_bytes(encode_png(mask))
    weak = row | {"supervision": "weak", "mask_uri": None, "shard_uri": str(shard), "shard_row": 0}
    true = row | {"supervision": "mask", "mask_uri": str(tmp_path / "truth.png"), "shard_uri": None, "shard_row": None}
    options = {"masks": Artifact("masks", "m"), "num_classes": 201, "long_side": (64, 64), "min_confidence": 0}
    stage = LoadSegmenterCrops(**options, **ARGS)
    stage.setup("cpu")
    for each in (weak, true):
        out = stage.process(each)
        crop, target = crop_of(out).astype(int), np.frombuffer(out["target"], np.uint8)[:-1].reshape(64, 64)
        assert np.array_equal(crop[..., 1] // 4 % 200, target)


def test_a_map_of_another_scene_is_an_error_of_its_row(row: dict[str, Any], tmp_path: Path) -> None:
    made = {"image_id": "a", "mask": encode_png(np.zeros((8, 8), np.uint8))}
    write_masks(str(tmp_path), [made | {"confidence": made["mask"], "height": 8, "width": 8}])
    (shard,) = tmp_path.glob("shards/*/*.parquet")
    options = {"masks": Artifact("masks", "m"), "num_classes": 3, "long_side": (64, 64), "min_confidence": 0}
    stage = LoadSegmenterCrops(**options, **ARGS)
    stage.setup("cpu")
    weak = row | {"supervision": "weak", "mask_uri": None, "shard_uri": str(shard), "shard_row": 0}
    (out,) = stage.process_all([weak])
    assert "a map of the scene is (8, 8) (height, width), the scene asks for (320, 404)" in out["error_reason"]


def test_a_damaged_scene_is_an_error_of_its_row(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "bad.tif").write_bytes(b"II*\0" + bytes(50))
    stage = LoadClassifierCrops(classes=("dog",), long_side=(40, 80), **ARGS)
    bad, good = stage.process_all([row | {"image_uri": str(tmp_path / "bad.tif")}, row])
    assert "TIFF" in bad["error_reason"]
    assert good["crop"]
