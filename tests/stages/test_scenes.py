from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

pytest.importorskip("tifffile")

from rasters import tiff

from raypipe import storage
from raypipe.config import Images
from raypipe.data.images import decode_image
from raypipe.data.opening import MAX_PIXELS
from raypipe.stages.base import Row, run_stages
from raypipe.stages.scenes import DecodeScenes, FetchScenes, is_tiled, scene_of

SCHEMA = pa.schema([("image_id", pa.string()), ("image_uri", pa.string()), ("labels", pa.list_(pa.string()))])
RGB = np.random.default_rng(0).integers(0, 256, (90, 150, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path, jpeg: bytes) -> Path:
    (tmp_path / "large.tif").write_bytes(tiff(RGB, photometric="rgb"))
    (tmp_path / "named.jpg").write_bytes(tiff(RGB, photometric="rgb"))  # content decides, not the ending
    (tmp_path / "small.tif").write_bytes(tiff(RGB[:60, :60], photometric="rgb"))
    (tmp_path / "bands.tif").write_bytes(tiff(RGB[..., :2]))
    (tmp_path / "photo.tif").write_bytes(jpeg)
    (tmp_path / "text.tif").write_bytes(b"no image")
    (tmp_path / "broken.tif").write_bytes(b"II*\0" + bytes(30))
    return tmp_path


def fetch(folder: Path, images: Images, *names: str, labels: Any = ("cat",)) -> list[Row]:
    rows = [{"image_id": name, "image_uri": str(folder / name), "labels": labels} for name in names]
    stages = [FetchScenes(classes=("cat",), images=images), DecodeScenes(max_side=images.max_side)]
    found: list[Row] = run_stages(stages, pa.Table.from_pylist(rows, SCHEMA)).to_pylist()
    return found


def test_what_is_read_by_windows_and_what_is_not(folder: Path) -> None:
    names = ("large.tif", "named.jpg", "small.tif", "photo.tif", "bands.tif", "text.tif", "broken.tif", "absent.tif")
    rows = {row["image_id"]: row for row in fetch(folder, Images(tile=64, max_side=100), *names)}
    for name in ("large.tif", "named.jpg"):
        row = rows[name]
        assert row["scene"] == {"height": 90, "width": 150, "tiled": True, "limits": [[0, 255]] * 3}
        assert (row["height"], row["width"], row["original_height"], row["original_width"]) == (90, 150, 90, 150)
        assert decode_image(row["image"]).pixels.shape == (60, 100, 3)
        assert is_tiled(row)
    assert rows["small.tif"]["scene"] is None
    assert rows["small.tif"]["height"] == 60
    assert rows["photo.tif"]["scene"] is None
    assert rows["photo.tif"]["image"] == (folder / "photo.tif").read_bytes()
    errors = {name: row["error_reason"] for name, row in rows.items() if row["error_reason"]}
    assert errors.keys() == {"bands.tif", "text.tif", "broken.tif", "absent.tif"}
    assert "images.bands" in errors["bands.tif"]
    assert "not an image in a supported format" in errors["text.tif"]
    assert "FileNotFoundError" in errors["absent.tif"]


def test_a_raster_that_is_no_scene_is_reduced(folder: Path) -> None:
    (row,) = fetch(folder, Images(bands=(2, 1, 2), max_side=75), "bands.tif")
    assert row["scene"]["tiled"] is False
    assert (row["height"], row["width"], row["original_height"], row["original_width"]) == (45, 75, 90, 150)
    assert not is_tiled(row)


def test_labels_are_looked_at_as_ever(folder: Path) -> None:
    for name in ("large.tif", "photo.tif"):
        (row,) = fetch(folder, Images(tile=64), name, labels=None)
        assert "labels are null" in row["error_reason"]
        (row,) = fetch(folder, Images(tile=64), name, labels=["emu"])
        assert "emu" in row["error_reason"]
    stage = FetchScenes(classes=("cat",), images=Images(tile=64))
    (row,) = stage.process_all([{"image_id": "a", "image_uri": None, "labels": []}])
    assert "image_uri is empty" in row["error_reason"]


def test_scenes_are_never_fetched_as_a_whole(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read_many = storage.read_many

    def watched(uris: Any, **options: Any) -> Any:
        wanted = list(uris)
        asked.extend(() if options else wanted)
        return read_many(wanted, **options)

    monkeypatch.setattr(storage, "read_many", watched)
    fetch(folder, Images(tile=64), "large.tif", "photo.tif")
    assert asked == [str(folder / "photo.tif")]


def test_only_what_is_read_by_windows_passes_the_limit_of_pixels(tmp_path: Path) -> None:
    side = 9600
    assert side**2 > MAX_PIXELS
    values = np.zeros((side, side), np.uint8)
    (tmp_path / "huge.tif").write_bytes(tiff(values, compression="zlib", tile=(512, 512)))
    (row,) = fetch(tmp_path, Images(tile=1024), "huge.tif")
    assert row["error_reason"] is None
    assert row["scene"]["tiled"]
    from raypipe.stages.fetch import FetchImages

    (row,) = FetchImages(classes=None).process_all([{"image_id": "a", "image_uri": str(tmp_path / "huge.tif")}])
    assert "more than 89,478,485 pixels" in row["error_reason"]


def test_a_scene_is_opened_with_the_limits_that_were_found_first(folder: Path, tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 4000, (90, 150), dtype=np.uint16)
    (tmp_path / "wide.tif").write_bytes(tiff(wide))
    images = Images(tile=64)
    (row,) = fetch(tmp_path, images, "wide.tif")
    scene = scene_of(row, images)
    low, high = np.percentile(wide.astype(float), [2, 98])
    assert scene.limits == ((low, high),)
    row["scene"]["limits"] = [[0.0, 100000.0]]
    assert scene_of(row, images).read(slice(0, 9), slice(0, 9)).max() < 15
