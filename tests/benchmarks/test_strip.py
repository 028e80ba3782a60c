import io
from types import ModuleType

import numpy as np
import pytest
from benchmark_files import load_benchmark
from PIL import Image

from raypipe.reports.content import Sample


@pytest.fixture(scope="module")
def strip() -> ModuleType:
    return load_benchmark("strip.py")


def make_sample(size: tuple[int, int] = (60, 90), *, refined: bool = True, photo: int = 90) -> Sample:
    height, width = size
    mask = np.ones(size, np.uint8)
    return Sample(
        image_id="a",
        kind="random",
        labels=("cat",),
        pixels=np.full((height, width, 3), (255, photo, photo), np.uint8),
        class_ids=(1,),
        cam=np.ones((1, -(-height // 4), -(-width // 4)), np.float32),
        affinity=np.ones((34, -(-height // 8), -(-width // 8)), np.float32),
        walk_mask=mask,
        mask=mask if refined else None,
        segment=mask,
        truth=mask,
        iou=None,
    )


def open_png(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "PNG"
    return image


def test_shape(strip: ModuleType) -> None:
    # 7 columns of 200 px and 8 gaps of 8; heading 26, a row as high as 200 · 60 / 90, and a tall one cut at 200.
    data = strip.write_strip([make_sample(), make_sample((900, 100))])
    assert open_png(data).size == (7 * 200 + 8 * 8, 26 + 133 + 200 + 2 * 8)


def test_columns_that_no_sample_has_are_left_out(strip: ModuleType) -> None:
    one = open_png(strip.write_strip([make_sample(refined=False)]))
    assert one.width == 6 * 200 + 7 * 8
    both = open_png(strip.write_strip([make_sample(refined=False), make_sample()]))
    assert both.width == 7 * 200 + 8 * 8


def test_the_photograph_is_in_it(strip: ModuleType) -> None:
    assert open_png(strip.write_strip([make_sample(photo=0)])).getpixel((100, 90)) == (255, 0, 0)


def test_one_pixel(strip: ModuleType) -> None:
    assert open_png(strip.write_strip([make_sample((1, 1))])).height == 26 + 200 + 8


def test_exception_no_sample(strip: ModuleType) -> None:
    with pytest.raises(ValueError, match="at least one sample"):
        strip.write_strip([])
