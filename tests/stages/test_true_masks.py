from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import encode, photo
from PIL import Image

from raypipe.data.images import decode_mask, encode_png, turn
from raypipe.stages.base import with_error_columns
from raypipe.stages.true_masks import LoadTrueMasks


def test_true_masks_stand_where_masks_do(tmp_path: Path) -> None:
    data = encode_png(np.array([[0, 1, 255]], np.uint8))
    (tmp_path / "a.png").write_bytes(data)
    (tmp_path / "c.png").write_bytes(encode_png(np.array([[0, 7]], np.uint8)))
    rows = [{"image_id": name, "image_uri": "", "mask_uri": str(tmp_path / f"{name}.png")} for name in "abc"]
    stage = LoadTrueMasks(num_classes=2)
    found, absent, unknown = stage(with_error_columns(pa.Table.from_pylist(rows))).to_pylist()
    assert (found["mask"], found["confidence"], found["error_stage"]) == (data, None, None)
    assert absent["error_stage"] == "LoadTrueMasks"
    assert "the true mask has values [7], but class ids end at 1" in unknown["error_reason"]


def rows_of(folder: Path, mask: np.ndarray, orientation: int, *, image: bool = True) -> pa.Table:
    exif = Image.Exif()
    exif[0x0112] = orientation
    if image:
        (folder / "a.jpg").write_bytes(encode(photo(24, 40), "JPEG", exif=exif.tobytes()))
    (folder / "a.png").write_bytes(encode_png(mask))
    row = {"image_id": "a", "image_uri": str(folder / "a.jpg"), "mask_uri": str(folder / "a.png")}
    return with_error_columns(pa.Table.from_pylist([row]))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_masks_lie_on_their_images_as_these_are_shown(tmp_path: Path, orientation: int) -> None:
    mask = np.random.default_rng(0).integers(0, 3, (24, 40), dtype=np.uint8)
    (row,) = LoadTrueMasks(num_classes=3)(rows_of(tmp_path, mask, orientation)).to_pylist()
    expected = turn(mask, orientation) if orientation > 4 else mask
    np.testing.assert_array_equal(decode_mask(row["mask"]), expected)


def test_a_mask_of_another_size_is_in_error(tmp_path: Path) -> None:
    (row,) = LoadTrueMasks(num_classes=3)(rows_of(tmp_path, np.zeros((24, 39), np.uint8), 1)).to_pylist()
    assert row["error_reason"] == "ValueError: the true mask is (24, 39) (height, width), the image (24, 40)"


def test_an_image_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    mask = np.ones((5, 9), np.uint8)
    (row,) = LoadTrueMasks(num_classes=3)(rows_of(tmp_path, mask, 1, image=False)).to_pylist()
    assert row["mask"] == encode_png(mask)


def test_a_scene_is_never_fetched_for_its_mask(tmp_path: Path) -> None:
    pytest.importorskip("tifffile")
    from rasters import tiff

    from raypipe.config import Images

    (tmp_path / "scene.tif").write_bytes(tiff(np.zeros((90, 150, 5), np.uint16)))  # which no other reader takes
    uris = {}
    for name, shape in (("right", (90, 150)), ("turned", (150, 90))):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.ones(shape, np.uint8)))
        uris[name] = str(tmp_path / f"{name}.png")
    rows = [{"image_uri": str(tmp_path / "scene.tif"), "mask_uri": uri} for uri in uris.values()]
    stage = LoadTrueMasks(num_classes=3, windows=Images(tile=64, bands=(1, 2, 3)))
    right, turned = stage.process_all(rows)
    assert (right["height"], right["width"], right["mask"]) == (90, 150, (tmp_path / "right.png").read_bytes())
    assert r"the true mask is (150, 90) (height, width), the image (90, 150)" in turned["error_reason"]
    fetched = [{**row, "image": b"a view", "scene": {"height": 90, "width": 150}} for row in rows]
    right, turned = LoadTrueMasks(num_classes=3).process_all(fetched)
    assert right["height"] == 90
    assert "the true mask is (150, 90)" in turned["error_reason"]
