from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.images import decode_image
from raypipe.data.opening import ImageError
from raypipe.stages import decode
from raypipe.stages.decode import DecodeImages, pixels_of


def test_pixels_and_sizes(jpeg: bytes) -> None:
    row = DecodeImages(max_side=50).process({"image": jpeg})
    assert (row["original_height"], row["original_width"]) == (61, 83)
    assert (row["height"], row["width"]) == (37, 50)
    np.testing.assert_array_equal(row["pixels"], decode_image(jpeg, max_side=50).pixels)


def test_pixels_are_no_column(jpeg: bytes) -> None:
    out = DecodeImages(max_side=50)(pa.table({"image": [jpeg]}))
    sizes = ["height", "width", "original_height", "original_width"]
    assert out.column_names == ["image", *sizes, "error_stage", "error_reason"]


def test_pixels_that_are_left_are_taken_and_others_decoded(jpeg: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    row: dict[str, Any] = {"image": jpeg}
    left = DecodeImages(max_side=50).process(row)
    np.testing.assert_array_equal(pixels_of(row, max_side=50), left["pixels"])
    monkeypatch.setattr(decode, "decode_image", None)
    assert pixels_of(row | left, max_side=50) is left["pixels"]


def test_damage_behind_a_sound_header_is_found(jpeg: bytes) -> None:
    (row,) = DecodeImages(max_side=50)(pa.table({"image": [jpeg[:-200]]})).to_pylist()
    assert row["error_stage"] == "DecodeImages"
    assert "ImageError: damaged or truncated JPEG" in row["error_reason"]
    with pytest.raises(ImageError, match="damaged or truncated"):
        pixels_of({"image": jpeg[:-200]}, max_side=50)
