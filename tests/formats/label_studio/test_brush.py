import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from numpy.typing import NDArray

from raypipe.formats.label_studio.brush import decode_brush, encode_brush

HEADER = "00111" + "0010" + "0011" + "0111" + "1111"
"""Words of 8 bits; counts of 3, 4, 8 and 16 bits."""


def pack(bits: str) -> list[int]:
    bits += "0" * (-len(bits) % 8)
    return [int(bits[start : start + 8], 2) for start in range(0, len(bits), 8)]


def test_by_hand() -> None:
    """Two pixels: one out, one in. Each is a run of four words: kind 0, count 4 - 1, the word."""
    bits = f"{8:032b}" + HEADER + "1" + "00" + "011" + "00000000" + "1" + "00" + "011" + "11111111"
    assert encode_brush(np.array([[False, True]])) == pack(bits)
    assert decode_brush(pack(bits), height=1, width=2).tolist() == [[False, True]]


def test_words_that_are_not_repeated_and_smooth_edges() -> None:
    """A pixel (1, 2, 3, 127) and one (9, 9, 9, 128): only the second's alpha is more than half."""
    words = "".join(f"{word:08b}" for word in (1, 2, 3, 127, 9, 9, 9, 128))
    bits = f"{8:032b}" + HEADER + "0" + "00" + "111" + words
    assert decode_brush(pack(bits), height=2, width=1).tolist() == [[False], [True]]


def test_runs_longer_than_a_count_are_cut() -> None:
    pixels = np.ones((300, 400), bool)
    encoded = encode_brush(pixels)
    assert len(encoded) < 40
    assert decode_brush(encoded, height=300, width=400).all()


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=40), elements=st.booleans()))
def test_round_trip(pixels: NDArray[np.bool_]) -> None:
    height, width = pixels.shape
    np.testing.assert_array_equal(decode_brush(encode_brush(pixels), height=height, width=width), pixels)


def test_label_studios_own_decoder_reads_it() -> None:
    brush = pytest.importorskip("label_studio_sdk.converter.brush")
    pixels = np.random.default_rng(0).random((31, 47)) < 0.5
    pixels[4:20, 5:40] = True
    decoded = brush.decode_rle(encode_brush(pixels)).reshape(31, 47, 4)
    np.testing.assert_array_equal(decoded[..., 3], np.where(pixels, 255, 0))
    theirs = brush.mask2rle(np.where(pixels, 255, 0).astype(np.uint8))
    np.testing.assert_array_equal(decode_brush(theirs, height=31, width=47), pixels)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "end too early"),
        ([0] * 20, "expected run lengths of 8 words of 8 bits, .* got 0 of 1 bits"),
        (["a"], "expected run lengths as a list of bytes"),
        ([256], "expected run lengths as a list of bytes"),
        (pack(f"{8:032b}" + HEADER + "1" + "00" + "011"), "end too early"),
        (pack(f"{8:032b}" + HEADER + "1" + "01" + "1111" + "00000000"), "expected run lengths of 8 words, got 16"),
    ],
)
def test_damaged_run_lengths(data: list[object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decode_brush(data, height=1, width=2)


def test_any_bytes_give_a_region_or_an_error() -> None:
    rng = random.Random(0)
    encoded = encode_brush(np.eye(9, dtype=bool))
    for _ in range(2000):
        damaged = list(encoded)
        damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            assert decode_brush(damaged, height=9, width=9).shape == (9, 9)
        except ValueError:
            continue
