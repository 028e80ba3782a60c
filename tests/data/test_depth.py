"""Pixels of more than 8 bits: nothing is black that a person would see, and nothing is guessed that can't be known."""

import struct
import zlib
from typing import Any

import numpy as np
import pytest
from corpus import chunk, encode
from PIL import Image

from raypipe.data.depth import Statement, UnknownRange, find_range, to_bytes
from raypipe.data.images import decode_image, encode_png
from raypipe.data.opening import ImageError
from raypipe.data.saliency_maps import decode_saliency

RAMP = np.linspace(0, 1, 24 * 40).reshape(24, 40)
HEADER_END = 33


def raw_png(values: np.ndarray, *, before: bytes = b"") -> bytes:
    """A PNG of 16 bits: (H, W) is grey, (H, W, 2) grey with alpha, (H, W, 3) and (H, W, 4) colours."""
    channels = 1 if values.ndim == 2 else values.shape[2]
    colour_type = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    height, width = values.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    lines = b"".join(b"\0" + line.astype(">u2").tobytes() for line in values)
    parts = [chunk(b"IHDR", header), before, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def raw_tiff(values: np.ndarray, tags: dict[int, tuple[int, Any]] | None = None, *, order: str = "II") -> bytes:
    """An uncompressed TIFF of one strip; tags are type and value of more entries."""
    mark, kind = ("<" if order == "II" else ">"), values.dtype.kind
    channels = 1 if values.ndim == 2 else values.shape[2]
    bits = values.dtype.itemsize * 8
    body = values.astype(values.dtype.newbyteorder(mark)).tobytes()
    place = 8 + len(body)
    entries: dict[int, tuple[int, Any]] = {
        256: (3, values.shape[1]),
        257: (3, values.shape[0]),
        259: (3, 1),
        262: (3, 2 if channels >= 3 else 1),
        273: (4, 8),
        277: (3, channels),
        278: (3, values.shape[0]),
        279: (4, len(body)),
        339: (3, {"u": 1, "i": 2, "f": 3}[kind]),
    } | (tags or {})
    if channels == 1:
        entries.setdefault(258, (3, bits))
    extra = struct.pack(mark + f"{channels}H", *[bits] * channels)
    packed = []
    for tag, (type_, value) in sorted((entries | ({} if channels == 1 else {258: (3, None)})).items()):
        if value is None:
            field = struct.pack(mark + "HHII", tag, type_, channels, place)
        else:
            code = {3: "H2x", 4: "I", 11: "f", 9: "i"}[type_]
            field = struct.pack(mark + "HHI" + code, tag, type_, 1, value)
        packed.append(field)
    count = struct.pack(mark + "H", len(packed))
    start = place + len(extra)
    return (
        order.encode()
        + struct.pack(mark + "HI", 42, start)
        + body
        + extra
        + count
        + b"".join(packed)
        + struct.pack(mark + "I", 0)
    )


def grey(data: bytes) -> np.ndarray:
    pixels = decode_image(data).pixels
    assert (pixels[..., 0] == pixels[..., 1]).all()
    return pixels[..., 0]


def expected(values: np.ndarray, white: float) -> np.ndarray:
    return np.rint(values.astype(np.float64) * 255 / white).astype(np.uint8)


@pytest.mark.parametrize(
    ("highest", "white"),
    [
        *((255, 255), (256, 1023), (1000, 1023), (1023, 1023), (1024, 4095), (4000, 4095), (4095, 4095)),
        *((4096, 16383), (16383, 16383), (16384, 65535), (40_000, 65535), (65535, 65535)),
    ],
)
@pytest.mark.parametrize("order", ["II", "MM"])
def test_whole_numbers_are_of_the_fewest_bits_that_hold_them(highest: int, white: int, order: str) -> None:
    values = np.rint(RAMP * highest).astype(np.uint16)
    for data in (raw_png(values), raw_tiff(values, order=order), raw_tiff(values.astype(np.int32), order=order)):
        np.testing.assert_array_equal(grey(data), expected(values, white))


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate"])
def test_a_12_bit_tiff_is_as_bright_whatever_its_compression(compression: str | None) -> None:
    values = np.rint(RAMP * 4095).astype(np.uint16)
    data = encode(Image.fromarray(values), "TIFF", compression=compression)
    np.testing.assert_array_equal(grey(data), expected(values, 4095))


@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("highest", [900, 4095, 14_000, 16_384, 65535])
def test_colours_are_as_grey(channels: int, highest: int) -> None:
    white = next(2**bits - 1 for bits in (8, 10, 12, 14, 16) if highest < 2**bits)
    colours = np.rint(RAMP * highest).astype(np.uint16)
    values = np.stack([colours, colours // 2, colours // 3, np.full_like(colours, white)][:channels], axis=2)
    if channels == 2:
        values[..., 1] = white
    pixels = decode_image(raw_png(values)).pixels
    shown = [colours] * 3 if channels == 2 else [colours, colours // 2, colours // 3]
    found = np.stack([expected(band, white) for band in shown], axis=2)
    assert np.abs(pixels.astype(int) - found).max() <= 1  # 16 bits in use: Pillow takes the high byte


@pytest.mark.parametrize("order", ["II", "MM"])
@pytest.mark.parametrize("highest", [4095, 65535])
def test_colours_of_a_tiff(order: str, highest: int) -> None:
    colours = np.rint(RAMP * highest).astype(np.uint16)
    values = np.stack([colours, colours[::-1], np.full_like(colours, highest // 2)], axis=2)
    pixels = decode_image(raw_tiff(values, order=order)).pixels
    assert np.abs(pixels.astype(int) - expected(values, highest)).max() <= 1


def test_alpha_of_12_bits() -> None:
    values = np.zeros((4, 6, 4), np.uint16)
    values[..., 0] = 4095
    values[:2, :, 3] = 4095
    pixels = decode_image(raw_png(values)).pixels
    np.testing.assert_array_equal(pixels[0, 0], (255, 0, 0))
    np.testing.assert_array_equal(pixels[3, 0], (255, 255, 255))


@pytest.mark.parametrize(
    ("bits", "highest", "white"),
    [(12, 500, 4095), (12, 4095, 4095), (12, 5000, 65535), (10, 80, 1023), (16, 100, 65535), (8, 200, 255)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_pngs_significant_bits_count(bits: int, highest: int, white: int, channels: int) -> None:
    values = np.rint(RAMP * highest).astype(np.uint16)
    stacked = values if channels == 1 else np.stack([values] * 3, axis=2)
    data = raw_png(stacked, before=chunk(b"sBIT", bytes([bits] * channels)))
    np.testing.assert_array_equal(grey(data), expected(values, white))


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.uint32, np.int32, np.float32])
@pytest.mark.parametrize(("low", "high"), [(0, 4095), (100, 1100), (0, 30_000)])
def test_a_tiffs_statement_of_black_and_white_counts(dtype: type, low: int, high: int) -> None:
    values = np.rint(low + RAMP * (high - low) / 2).astype(dtype)
    data = raw_tiff(values, {340: (4, low), 341: (4, high)})
    np.testing.assert_array_equal(grey(data), np.rint((values.astype(float) - low) * 255 / (high - low)))


def test_a_statement_below_zero_counts() -> None:
    values = np.rint(-1000 + RAMP * 3000).astype(np.int16)
    data = raw_tiff(values, {340: (9, -1000), 341: (9, 2000)})
    found = grey(data).astype(int)
    assert np.abs(found - (values.astype(float) + 1000) * 255 / 3000).max() <= 0.51


def test_a_statement_that_the_values_break_does_not_count() -> None:
    values = np.rint(RAMP * 4095).astype(np.uint16)
    np.testing.assert_array_equal(grey(raw_tiff(values, {341: (4, 255)})), expected(values, 4095))


def test_a_tiffs_packed_12_bits() -> None:
    values = np.rint(RAMP * 800).astype(np.uint16)
    pairs = values.reshape(24, 20, 2).astype(np.uint32)
    packed = np.stack([pairs[..., 0] >> 4, (pairs[..., 0] & 15) << 4 | pairs[..., 1] >> 8, pairs[..., 1] & 255], axis=2)
    data = raw_tiff(packed.reshape(24, 60).astype(np.uint8), {256: (3, 40), 258: (3, 12)})
    np.testing.assert_array_equal(grey(data), expected(values, 4095))


@pytest.mark.parametrize("highest", [0.2, 0.9, 1.0])
def test_fractions_are_of_one(highest: float) -> None:
    values = (RAMP * highest).astype(np.float32)
    np.testing.assert_array_equal(grey(raw_tiff(values)), expected(values, 1))


def test_whole_numbers_as_floats_are_as_others() -> None:
    values = np.rint(RAMP * 255).astype(np.float32)
    np.testing.assert_array_equal(grey(raw_tiff(values)), expected(values, 255))


@pytest.mark.parametrize(
    ("values", "seen"),
    [
        (np.rint(RAMP * 100_000).astype(np.int32), "from 0 to 100000"),
        (np.rint(RAMP * 4e9).astype(np.uint32), "from 0 to 4000000000"),
        (np.rint(RAMP * 3000 - 1024).astype(np.int16), "from -1024 to 1976"),
        ((RAMP * 3).astype(np.float32), "from 0.0 to 3.0"),
        ((RAMP - 0.5).astype(np.float32), "from -0.5 to 0.5"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "from nan to nan"),
        (np.where(RAMP > 0.5, np.inf, RAMP).astype(np.float32), "from 0.0 to inf"),
    ],
)
def test_another_range_is_refused_and_named(values: np.ndarray, seen: str) -> None:
    with pytest.raises(ImageError, match=r"have no known range.*SMaxSampleValue") as caught:
        decode_image(raw_tiff(values))
    assert seen in str(caught.value)


def test_white_is_zero_where_a_tiff_says_so() -> None:
    values = np.rint(RAMP * 4095).astype(np.uint16)
    np.testing.assert_array_equal(grey(raw_tiff(values, {262: (3, 0)})), 255 - expected(values, 4095))


@pytest.mark.parametrize("highest", [4095, 65535])
def test_a_pngs_transparent_value_is_white(highest: int) -> None:
    values = np.rint(RAMP * highest).astype(np.uint16)
    key = int(values[5, 7])
    found = grey(raw_png(values, before=chunk(b"tRNS", struct.pack(">H", key))))
    assert (found[values == key] == 255).all()
    np.testing.assert_array_equal(found[values != key], expected(values, highest)[values != key])
    colours = np.stack([values, values, values // 2], axis=2)
    rgb = struct.pack(">3H", key, key, key // 2)
    pixels = decode_image(raw_png(colours, before=chunk(b"tRNS", rgb))).pixels
    assert (pixels[values == key] == 255).all()
    assert np.abs(pixels[values != key].astype(int) - expected(colours, highest)[values != key]).max() <= 1


def test_a_pgms_largest_value_is_white() -> None:
    values = np.rint(RAMP * 300).astype(">u2")
    data = b"P5\n40 24\n4095\n" + values.tobytes()
    assert np.abs(grey(data).astype(int) - expected(values, 4095)).max() <= 1
    guessed = b"P5\n40 24\n65535\n" + values.tobytes()
    np.testing.assert_array_equal(grey(guessed), expected(values, 1023))


def test_a_jpeg_2000_states_its_bits() -> None:
    values = np.rint(RAMP * 3000).astype(np.uint16)
    data = encode(Image.fromarray(values), "JPEG2000")
    np.testing.assert_array_equal(grey(data), expected(values, 65535))


def test_a_saliency_map_is_never_brightened() -> None:
    values = np.rint(RAMP * 4095).astype(np.uint16)
    found = decode_saliency(raw_png(values), size=values.shape, image=lambda: b"")
    np.testing.assert_array_equal(found, expected(values, 65535))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr"])
def test_other_modes_show_their_picture(mode: str) -> None:
    picture = Image.fromarray(np.rint(RAMP * 255).astype(np.uint8))
    image = picture.convert("RGBA").convert("PA") if mode == "PA" else picture.convert(mode)
    kind = {"YCbCr": "JPEG", "PA": "TIFF", "CMYK": "TIFF"}.get(mode, "PNG")
    found = grey(encode(image, kind)).astype(int)
    assert np.abs(found - np.asarray(picture)).max() <= (255 if mode == "1" else 8)
    assert found[:5].mean() < 60
    assert found[-5:].mean() > 200


def test_premultiplied_alpha() -> None:
    values = np.full((4, 6, 4), 128, np.uint8)
    pixels = decode_image(raw_tiff(values, {338: (3, 1)})).pixels
    np.testing.assert_array_equal(pixels[0, 0], (255, 255, 255))


def test_the_same_file_is_the_same_picture_each_time() -> None:
    data = raw_png(np.rint(RAMP * 3000).astype(np.uint16))
    assert len({decode_image(data).pixels.tobytes() for _ in range(3)}) == 1


def test_a_range_of_nothing_is_no_range() -> None:
    values = np.array([[7]])
    assert find_range(values, Statement(lowest=7, highest=7), guess=True) == (0, 255)
    with pytest.raises(UnknownRange):
        find_range(values - 8, Statement(lowest=-5, highest=-5), guess=True)


def test_large_images_are_scaled_in_parts() -> None:
    values = np.arange(3000 * 1000, dtype=np.int64).reshape(3000, 1000) % 65536
    np.testing.assert_array_equal(to_bytes(values, 0, 65535), expected(values, 65535))


def test_8_bits_stay_as_they_are() -> None:
    values = np.rint(RAMP * 60).astype(np.uint8)
    np.testing.assert_array_equal(grey(encode_png(values)), values)
