import io
from typing import Any

import numpy as np
import pytest
from corpus import encode
from PIL import Image

from raypipe.data.images import encode_png, turn
from raypipe.data.opening import ImageError
from raypipe.data.saliency_maps import decode_saliency as decode


def decode_saliency(data: bytes, **options: Any) -> np.ndarray:
    return decode(data, image=photograph, **options)


def photograph(orientation: int = 1, size: tuple[int, int] = (375, 500)) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.new("L", size[::-1]), exif=exif.tobytes())


def test_grey_values_stay() -> None:
    values = np.arange(48, dtype=np.uint8).reshape(6, 8)
    np.testing.assert_array_equal(decode_saliency(encode_png(values), size=(60, 80)), values)


def test_colours_become_grey() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), (200, 200, 200)).save(buffer, format="PNG")
    assert (decode_saliency(buffer.getvalue(), size=(6, 8)) == 200).all()


@pytest.mark.parametrize("size", [(375, 500), (376, 500), (374, 500), (94, 125)])
def test_a_pixel_of_rounding_is_no_other_shape(size: tuple[int, int]) -> None:
    assert decode_saliency(encode_png(np.zeros(size, np.uint8)), size=(375, 500)).shape == size


@pytest.mark.parametrize("size", [(500, 375), (320, 320), (375, 560)])
def test_another_shape_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="belongs to no image of 375 x 500"):
        decode_saliency(encode_png(np.zeros(size, np.uint8)), size=(375, 500))


def test_a_large_map_is_reduced() -> None:
    assert decode_saliency(encode_png(np.zeros((60, 80), np.uint8)), size=(30, 40), max_side=40).shape == (30, 40)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
@pytest.mark.parametrize("size", [(30, 40), (60, 80), (75, 100)])
def test_a_map_of_the_picture_in_the_file_is_turned(orientation: int, size: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    image = photograph(orientation, (60, 80))
    found = decode(encode_png(values), size=(80, 60), image=lambda: image)
    np.testing.assert_array_equal(found, turn(values, orientation))
    upright = np.ascontiguousarray(values.T)
    np.testing.assert_array_equal(decode(encode_png(upright), size=(80, 60), image=lambda: image), upright)
