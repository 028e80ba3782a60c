"""COCO's regions: by hand, and as pycocotools has them."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from raypipe.formats.coco.regions import decode_run_lengths, decode_segmentation


def test_by_hand() -> None:
    """Down the columns: 1 out, 2 in, 1 out of a picture 2 high. Compressed: "1", "2", "1"."""
    expected = [[False, True], [True, False]]
    assert decode_run_lengths([1, 2, 1], height=2, width=2).tolist() == expected
    assert decode_run_lengths("121", height=2, width=2).tolist() == expected


def test_compressed_numbers_by_hand() -> None:
    """40 = 01000 + 32: "X1" (8 + 32 + 48 = "X", 1 + 48 = "1"); the fourth is 7 - 5 = 2, the fifth 3 - 8 = -5 ("K")."""
    lengths = [40, 5, 8, 7, 3]
    found = decode_run_lengths("X15" + "8" + "2" + "K", height=1, width=sum(lengths))
    np.testing.assert_array_equal(found[0], np.repeat([False, True, False, True, False], lengths))


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_as_pycocotools_encodes(pixels: NDArray[np.bool_]) -> None:
    height, width = pixels.shape
    encoded = coco_mask.encode(np.asfortranarray(pixels, np.uint8))
    segmentation = {"size": [height, width], "counts": encoded["counts"].decode()}
    np.testing.assert_array_equal(decode_segmentation(segmentation, height=height, width=width), pixels)


def test_polygons() -> None:
    square, corner = [1, 1, 4, 1, 4, 3, 1, 3], [5.0, 4.0, 9.0, 4.0, 9.0, 9.0, 5.0, 9.0]
    found = decode_segmentation([square, corner], height=5, width=6)
    expected = np.zeros((5, 6), bool)
    expected[1:3, 1:4] = True
    expected[4:, 5:] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "expected run lengths or polygons"),
        ([], "expected run lengths or polygons"),
        ({"size": [2, 3], "counts": [4]}, r"size \[2, 2\], got \[2, 3\]"),
        ({"size": [2, 2], "counts": [3]}, "image's 4 pixels, got 3"),
        ({"size": [2, 2], "counts": [5, -1]}, "as a text or a list of counts, got neither"),
        ({"size": [2, 2], "counts": [True, 3]}, "as a text or a list of counts, got neither"),
        ({"size": [2, 2], "counts": None}, "as a text or a list of counts, got neither"),
        ({"size": [2, 2], "counts": "12 "}, "damaged at their number 2"),
        ({"size": [2, 2], "counts": "o" * 9}, "damaged at their number 0"),
        ({"size": [2, 2], "counts": "1P"}, "end too early"),
        ({"size": [2, 2], "counts": "oooooo?"}, "4 pixels, got [0-9]+"),
        ([[0, 0, 1, 1]], "of at least three corners"),
        ([[0, 0, 1, 1, 2, 2, 3]], "of at least three corners"),
        ([[0, 0, 1, "x", 2, 2]], "of at least three corners"),
        ([[0, 0, 1, float("nan"), 2, 2]], "of at least three corners"),
        ([5], "of at least three corners"),
    ],
)
def test_damaged_segmentations(segmentation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_segmentation(segmentation, height=2, width=2)


def test_corners_far_outside_cost_no_memory() -> None:
    found = decode_segmentation([[-1e12, -1e12, 1e12, -1e12, 1e12, 1e12, -1e12, 1e12]], height=3, width=4)
    assert found.all()


def test_any_text_gives_a_region_or_an_error() -> None:
    rng = random.Random(0)
    text = coco_mask.encode(np.asfortranarray(np.eye(9, dtype=np.uint8)))["counts"].decode()
    for _ in range(2000):
        damaged = list(text)
        damaged[rng.randrange(len(damaged))] = chr(rng.randrange(32, 127))
        try:
            assert decode_run_lengths("".join(damaged), height=9, width=9).shape == (9, 9)
        except ValueError:
            continue
