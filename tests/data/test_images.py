"""Decoding: every kind of image becomes RGB as a person would expect it, or an error that names the reason."""

import importlib.util
import io
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.data import opening
from raypipe.data.images import decode_image, decode_mask, encode_png
from raypipe.data.opening import MAX_PIXELS, ImageError


def encode(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def gradient(height: int, width: int) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 255 // height, columns * 255 // width, 0 * rows + 90], axis=-1).astype(np.uint8)


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    return block.tobytes()


def test_convention_rgb_rows_first() -> None:
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 2] = (255, 10, 20)
    decoded = decode_image(encode(Image.fromarray(pixels)))
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_array_equal(decoded.pixels, pixels)
    assert (decoded.original_height, decoded.original_width) == (2, 3)


def test_decoded_pixels_are_writable_and_contiguous() -> None:
    pixels = decode_image(encode(Image.fromarray(gradient(4, 5)))).pixels
    assert pixels.flags.writeable
    assert pixels.flags.c_contiguous


@pytest.mark.parametrize("kind", ["JPEG", "TIFF", "PNG", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "turns", "flip"), [(1, 0, False), (3, 2, False), (6, 3, False), (8, 1, False), (2, 0, True)]
)
def test_exif_rotation(kind: str, orientation: int, turns: int, flip: bool) -> None:
    pixels = gradient(32, 48)
    decoded = decode_image(encode(Image.fromarray(pixels), kind, exif=exif(orientation)))
    expected = np.rot90(pixels, turns)
    expected = expected[:, ::-1] if flip else expected
    assert (decoded.original_height, decoded.original_width) == expected.shape[:2]
    assert np.abs(decoded.pixels.astype(int) - expected).max() <= (0 if kind in ("PNG", "TIFF") else 24)


@pytest.mark.filterwarnings("error")
def test_damaged_exif_does_not_cost_the_image() -> None:
    data = encode(Image.fromarray(gradient(16, 16)), "JPEG", exif=b"Exif\0\0" + b"II*\0\xff\xff\xff\xff broken")
    assert decode_image(data).pixels.shape == (16, 16, 3)


@pytest.mark.parametrize(
    ("height", "width", "working"),
    [
        (10, 20, (10, 20)),
        (100, 50, (100, 50)),
        (200, 100, (100, 50)),
        (333, 1000, (33, 100)),
        (1, 20000, (1, 100)),
        (1, 1, (1, 1)),
    ],
)
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_reduction_to_max_side(height: int, width: int, working: tuple[int, int], kind: str) -> None:
    decoded = decode_image(encode(Image.fromarray(gradient(height, width)), kind), max_side=100)
    assert decoded.pixels.shape == (*working, 3)
    assert (decoded.original_height, decoded.original_width) == (height, width)


def test_rotated_and_reduced_jpeg() -> None:
    decoded = decode_image(encode(Image.fromarray(gradient(400, 1200)), "JPEG", exif=exif(6)), max_side=150)
    assert decoded.pixels.shape == (150, 50, 3)
    assert (decoded.original_height, decoded.original_width) == (1200, 400)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_reduction_is_antialiased(kind: str) -> None:
    stripes = np.tile(np.array([0, 255], np.uint8), (400, 200))
    reduced = decode_image(encode(Image.fromarray(stripes), kind), max_side=50).pixels
    assert reduced.std() < 12
    assert abs(reduced.mean() - 127.5) < 4


def test_max_side_none_keeps_the_size() -> None:
    assert decode_image(encode(Image.fromarray(gradient(3, 2000))), max_side=None).pixels.shape == (3, 2000, 3)


def test_cmyk() -> None:
    cmyk = Image.fromarray(np.full((16, 16, 3), (200, 30, 60), np.uint8)).convert("CMYK")
    assert np.abs(decode_image(encode(cmyk, "JPEG", quality=95)).pixels.astype(int) - (200, 30, 60)).max() < 12


def test_16_bit_grey_is_scaled() -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    pixels = decode_image(encode(Image.fromarray(values))).pixels
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 1, 128, 255])
    assert pixels.shape == (1, 4, 3)


def test_transparency_is_laid_on_white() -> None:
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 128]]], np.uint8)
    np.testing.assert_array_equal(
        decode_image(encode(Image.fromarray(rgba))).pixels[0], [[255, 0, 0], [255] * 3, [127] * 3]
    )
    grey_alpha = Image.fromarray(rgba).convert("LA")
    np.testing.assert_array_equal(decode_image(encode(grey_alpha)).pixels[0, 1], [255] * 3)


def test_palette_with_transparency() -> None:
    palette = Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60])
    opaque = decode_image(encode(palette)).pixels
    np.testing.assert_array_equal(opaque[0], [[10, 20, 30], [40, 50, 60]])
    seen = decode_image(encode(palette, transparency=0)).pixels
    np.testing.assert_array_equal(seen[0], [[255] * 3, [40, 50, 60]])


def test_one_bit_and_grey() -> None:
    bits = Image.fromarray(np.array([[True, False]]))
    np.testing.assert_array_equal(decode_image(encode(bits)).pixels[0], [[255] * 3, [0] * 3])
    grey = Image.fromarray(np.array([[7, 200]], np.uint8))
    np.testing.assert_array_equal(decode_image(encode(grey)).pixels[0], [[7] * 3, [200] * 3])


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ((250, 0, 0), (0, 250, 0))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    np.testing.assert_array_equal(decode_image(data).pixels[0, 0], (250, 0, 0))


def test_multi_picture_jpeg() -> None:
    frames = [Image.fromarray(gradient(40, 60)), Image.fromarray(gradient(40, 60))]
    decoded = decode_image(encode(frames[0], "MPO", save_all=True, append_images=frames[1:]), max_side=30)
    assert decoded.pixels.shape == (20, 30, 3)


def png_header(width: int, height: int) -> bytes:
    """A valid PNG of another size with its header rewritten, checksum included."""
    data = bytearray(encode(Image.new("L", (1, 1))))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(12_000, 12_000), (60_000, 60_000), (MAX_PIXELS + 1, 1)])
def test_pixel_bomb_is_refused_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="pixels: reduce the image"):
        decode_image(png_header(*size))


def test_floating_point_without_a_range_is_refused() -> None:
    with pytest.raises(ImageError, match=r"mode F: pixels from 1\.5 to 1\.5"):
        decode_image(encode(Image.fromarray(np.full((2, 2), 1.5, np.float32)), "TIFF"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"\0" * 100, "supported format"),
        (b"<html>404 not found</html>", "supported format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "supported format"),
        (encode(Image.fromarray(gradient(64, 64)), "JPEG")[:-200], "truncated"),
        (encode(Image.fromarray(gradient(64, 64)))[:-80], "truncated"),
        (encode(Image.fromarray(gradient(64, 64)), "WEBP")[:-80], "could not create decoder"),
    ],
)
def test_bad_bytes(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode_image(data)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_convention_mask_holds_class_ids() -> None:
    ids = np.array([[0, 1, 20], [254, 255, 3]], np.uint8)
    np.testing.assert_array_equal(decode_mask(encode_png(ids)), ids)
    palette = Image.fromarray(ids)
    palette.putpalette([(value * 37) % 256 for value in range(768)])
    assert palette.mode == "P"
    np.testing.assert_array_equal(decode_mask(encode(palette)), ids)


def test_small_palette_mask() -> None:
    ids = np.array([[0, 1, 3]], np.uint8)
    palette = Image.fromarray(ids)
    palette.putpalette([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0])
    np.testing.assert_array_equal(decode_mask(encode(palette, bits=2)), ids)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(gradient(4, 4)),
        Image.fromarray(np.zeros((4, 4), np.uint16)),
        Image.fromarray(np.zeros((4, 4), bool)),
    ],
)
def test_mask_of_another_mode_is_refused(image: Image.Image) -> None:
    with pytest.raises(ImageError, match="aren't class ids"):
        decode_mask(encode(image))


def test_truncated_mask() -> None:
    with pytest.raises(ImageError, match="truncated"):
        decode_mask(encode_png(np.random.default_rng(0).integers(0, 9, (64, 64)).astype(np.uint8))[:-60])


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8), np.zeros((0, 2), np.uint8)]
)
def test_encode_png_refuses(array: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8 array of shape"):
        encode_png(array)


def test_encode_png_of_a_view() -> None:
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)[::2, ::3]
    np.testing.assert_array_equal(decode_mask(encode_png(values)), values)


@pytest.mark.shared_data
def test_real_photograph_and_mask(voc_root: Any) -> None:
    name = "2007_000032"
    decoded = decode_image((voc_root / f"JPEGImages/{name}.jpg").read_bytes())
    mask = decode_mask((voc_root / f"SegmentationClass/{name}.png").read_bytes())
    assert decoded.pixels.shape == (281, 500, 3)
    assert mask.shape == (281, 500)
    assert set(np.unique(mask)) == {0, 1, 15, 255}


def test_a_large_mask_is_that_of_its_image_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if 100 pixels were the limit."""
    monkeypatch.setattr(opening, "MAX_PIXELS", 100)
    mask = np.arange(15 * 20, dtype=np.uint16).reshape(15, 20).astype(np.uint8)
    png = encode_png(mask)
    with pytest.raises(ImageError, match="20 x 15 is more than 100 pixels"):
        decode_mask(png)
    assert np.array_equal(decode_mask(png, size=(15, 20)), mask)
    for size in ((20, 15), (15, 21), (1000, 1000)):
        with pytest.raises(ImageError, match=f"20 x 15 pixels isn't the image's, {size[1]} x {size[0]}"):
            decode_mask(png, size=size)
    with pytest.raises(ImageError, match="20 x 15 is more than 100 pixels"):
        decode_mask(png, size=(5, 5))
    for data in (b"", b"GIF89a" + bytes(30), png[:20]):
        with pytest.raises(ImageError, match=r"not a PNG|empty"):
            decode_mask(data, size=(15, 20))
    monkeypatch.setattr(opening, "MAX_SCENE_PIXELS", 200)
    with pytest.raises(ImageError, match="isn't the image's"):
        decode_mask(png, size=(15, 20))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "^HEIC images need pillow-heif on every machine$"),
        (b"\xff\x0a\0\0", "^JPEG XL images need to be saved as JPEG, PNG or WebP$"),
        (b"<html>", "^not an image in a supported format"),
    ],
)
def test_formats_without_a_reader_are_named_with_what_helps(
    head: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ImageError, match=message):
        decode_image(head + bytes(100))
