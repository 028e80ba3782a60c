import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tifffile")

from export_rows import exported_row, make_rows
from rasters import PLACE, tiff
from tifffile import TiffFile

from raypipe.data.images import decode_mask
from raypipe.data.tiff import InMemory, geotags
from raypipe.formats.base import MaskRow
from raypipe.formats.geotiff.write import GeoTiff, encode_geotiff

MASK = np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (300, 401))


def row(image_uri: str) -> MaskRow:
    return replace(make_rows()[0], image_id="a b", image_uri=image_uri, folder="train", mask=MASK, confidence=None)


@pytest.mark.parametrize(
    "options", [{}, {"byteorder": ">"}, {"bigtiff": True}, {"rowsperstrip": 5}, {"compression": "lzw"}]
)
def test_a_mask_lies_where_its_image_does(tmp_path: Path, options: dict[str, object]) -> None:
    image = tmp_path / "image.tif"
    image.write_bytes(tiff(np.zeros((300, 401), np.uint16), extratags=PLACE, **options))
    ((path, content),) = GeoTiff(("cat", "dog")).render(row(str(image))).files.items()
    assert path.startswith("masks/train/")
    assert path.endswith(".tif")
    assert geotags(InMemory(content)) == geotags(InMemory(image.read_bytes()))
    with TiffFile(io.BytesIO(content)) as file, TiffFile(image) as original:
        assert file.geotiff_metadata == original.geotiff_metadata
        assert file.pages.first.is_tiled
        assert file.pages.first.nodata == 255
    assert np.array_equal(decode_mask(content), MASK)


def test_an_image_that_lies_nowhere(tmp_path: Path, jpeg: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg)
    for uri in (str(tmp_path / "a.jpg"), ""):
        (content,) = GeoTiff(("cat",)).render(row(uri)).files.values()
        assert geotags(InMemory(content)) == ()
        assert np.array_equal(decode_mask(content), MASK)


def test_an_image_that_is_gone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GeoTiff(("cat",)).render(row(str(tmp_path / "gone.tif")))


def test_classes_stand_beside(tmp_path: Path) -> None:
    exported = exported_row(replace(row("s3://b/a.tif"), folder="val"), [])
    GeoTiff(("cat", "dog")).conclude(lambda: iter([exported]), str(tmp_path))
    assert (tmp_path / "splits" / "val.txt").read_text() == exported.stem + "\n"
    assert (tmp_path / "labelmap.txt").read_text().splitlines()[1:] == [
        "background:0,0,0::",
        "cat:128,0,0::",
        "dog:0,128,0::",
    ]
    assert "images/val/" in (tmp_path / "images.csv").read_text()


def test_a_large_mask_of_few_colours_is_small() -> None:
    mask = np.zeros((4000, 4000), np.uint8)
    mask[1000:2000, 500:2500] = 3
    assert len(encode_geotiff(mask, ())) < 100_000
