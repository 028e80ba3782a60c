import io

import numpy as np
import pytest
from PIL import Image

from raypipe.reports.strip import COLUMNS, draw_columns, write_strip


def open_png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def test_columns_have_one_size(make_sample):
    pictures = draw_columns(make_sample(size=(480, 640)))
    assert tuple(pictures) == COLUMNS
    assert {picture.shape for picture in pictures.values()} == {(240, 320, 3)}


def test_what_is_missing_is_none(make_sample):
    pictures = draw_columns(make_sample(affinity=None, mask=None, segment=None, truth=None))
    assert [name for name, picture in pictures.items() if picture is None] == [
        "affinity",
        "refined",
        "segmenter",
        "truth",
    ]


def test_shape(make_sample):
    # 7 columns of 200 px and 8 gaps of 8; heading 26, a row as high as 200 · 60 / 90, and a tall one cut at 200.
    tall = make_sample(size=(900, 100))
    assert open_png(write_strip([make_sample(), tall])).size == (7 * 200 + 8 * 8, 26 + 133 + 200 + 2 * 8)


def test_columns_that_no_sample_has_are_left_out(make_sample):
    one = open_png(write_strip([make_sample(mask=None)]))
    assert one.width == 6 * 200 + 7 * 8
    both = open_png(write_strip([make_sample(mask=None), make_sample()]))
    assert both.width == 7 * 200 + 8 * 8


def test_the_photograph_is_in_it(make_sample):
    red = np.zeros((60, 90, 3), np.uint8)
    red[..., 0] = 255
    assert open_png(write_strip([make_sample(pixels=red)])).getpixel((100, 90)) == (255, 0, 0)


def test_one_pixel(make_sample):
    assert open_png(write_strip([make_sample(size=(1, 1))])).height == 26 + 200 + 8


def test_exception_no_sample():
    with pytest.raises(ValueError, match="at least one sample"):
        write_strip([])
