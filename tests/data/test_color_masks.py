"""Masks whose classes are colours."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from raypipe.data.color_masks import decode_color_mask
from raypipe.data.opening import ImageError

COLORS = {(0, 0, 0): 0, (128, 0, 0): 1, (0, 128, 0): 2, (255, 255, 255): 3}
ROWS = [(0, 0, 0), (128, 0, 0), (0, 128, 0), (255, 255, 255)]


def png(image: Image.Image, **save: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", **save)
    return buffer.getvalue()


def drawn(ids: Any) -> Image.Image:
    return Image.fromarray(np.array(ROWS, np.uint8)[np.array(ids)])


@settings(deadline=None, derandomize=True)
@given(arrays(np.uint8, (3, 4), elements=st.integers(0, 3)))
def test_colours_and_palettes_are_the_same(ids: Any) -> None:
    expected = ids.tolist()
    image = drawn(ids)
    found = decode_color_mask(png(image), COLORS)
    if len(set(ids.ravel()) & {1, 2}):
        assert found is not None
        assert found.tolist() == expected
        quantized = image.quantize(colors=4)
        of_palette = decode_color_mask(png(quantized), COLORS)
        assert of_palette is not None
        assert of_palette.tolist() == expected


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [((128, 0, 0), 1), ((224, 224, 192), 255), ((0, 0, 0), 0), ((255, 255, 255), 3)],
)
def test_a_pixel(pixel: tuple[int, int, int], expected: int) -> None:
    content = png(Image.new("RGB", (2, 1), pixel))
    found = decode_color_mask(content, COLORS)
    assert found is not None
    assert found.tolist() == [[expected] * 2]


def test_black_is_background_unless_it_is_a_class() -> None:
    content = png(drawn([[0, 1]]))
    found = decode_color_mask(content, {(128, 0, 0): 1})
    assert found is not None
    assert found.tolist() == [[0, 1]]
    found = decode_color_mask(content, {(128, 0, 0): 1, (0, 0, 0): 2})
    assert found is not None
    assert found.tolist() == [[2, 1]]


def test_the_border_may_be_a_class() -> None:
    found = decode_color_mask(png(Image.new("RGB", (1, 1), (224, 224, 192))), {(224, 224, 192): 5})
    assert found is not None
    assert found.tolist() == [[5]]


def test_grey_masks_and_other_palettes_hold_ids() -> None:
    assert decode_color_mask(png(Image.new("L", (2, 1), 3)), COLORS) is None
    image = Image.new("P", (2, 1), 3)
    image.putpalette([9, 8, 7] * 4)
    assert decode_color_mask(png(image), COLORS) is None


@pytest.mark.parametrize("pixel", [(1, 2, 3), (127, 0, 0), (0, 0, 1)])
def test_a_colour_of_no_class(pixel: tuple[int, int, int]) -> None:
    image = drawn([[0, 1, 2]])
    image.putpixel((0, 0), pixel)
    with pytest.raises(ImageError, match=f"colours that no class has: {pixel[0]},{pixel[1]},{pixel[2]}"):
        decode_color_mask(png(image), COLORS)


def test_a_jpeg_of_a_mask_is_refused() -> None:
    buffer = io.BytesIO()
    drawn(np.random.default_rng(0).integers(0, 4, (16, 16))).save(buffer, "JPEG", quality=80)
    with pytest.raises(ImageError, match="colours that no class has"):
        decode_color_mask(buffer.getvalue(), COLORS)
