"""Damaged files: whatever happens to the bytes, decoding gives an image of sane size or an ImageError."""

import io
import resource
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from raypipe.data.images import decode_image, decode_mask, encode_png
from raypipe.data.opening import MAX_PIXELS, ImageError

MAX_SIDE = 48
NUM_MUTATIONS = 2000

Bytes = bytearray
Mutation = Callable[[Bytes, np.random.Generator], Bytes]


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((60, 44))
EXIF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
FILES = {
    "JPEG": encode(PICTURE, "JPEG", exif=EXIF, icc_profile=bytes(60)),
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True),
    "PNG": encode(PICTURE, "PNG"),
    "palette PNG": encode(PICTURE.convert("P"), "PNG", transparency=0),
    "WEBP": encode(PICTURE, "WEBP"),
    "GIF": encode(PICTURE, "GIF"),
    "TIFF": encode(PICTURE, "TIFF", compression="tiff_lzw"),
    "BMP": encode(PICTURE, "BMP"),
}
MASK = encode_png(np.random.default_rng(0).integers(0, 3, (44, 60), dtype=np.uint8))


def flip_bits(data: Bytes, rng: np.random.Generator) -> Bytes:
    for position in rng.integers(len(data), size=int(rng.integers(1, 9))):
        data[position] ^= 1 << int(rng.integers(8))
    return data


def overwrite(data: Bytes, rng: np.random.Generator) -> Bytes:
    for position in rng.integers(len(data), size=int(rng.integers(1, 9))):
        data[position] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF]))
    return data


def truncate(data: Bytes, rng: np.random.Generator) -> Bytes:
    return data[: rng.integers(len(data))]


def insert(data: Bytes, rng: np.random.Generator) -> Bytes:
    position = int(rng.integers(len(data)))
    data[position:position] = rng.bytes(int(rng.integers(1, 40)))
    return data


def swap_parts(data: Bytes, rng: np.random.Generator) -> Bytes:
    first, second = sorted(int(position) for position in rng.integers(len(data), size=2))
    length = int(rng.integers(1, 40))
    parts = data[first : first + length], data[second : second + length]
    data[second : second + length], data[first : first + length] = parts
    return data


def change_numbers_in_the_header(data: Bytes, rng: np.random.Generator) -> Bytes:
    position = int(rng.integers(4, min(64, len(data))))
    order = ("big", "little")[int(rng.integers(2))]
    data[position : position + 4] = int(rng.choice([0, 1, 255, 4000, 70_000, 2**31 - 1, 2**32 - 1])).to_bytes(4, order)
    return data


MUTATIONS: list[Mutation] = [flip_bits, overwrite, truncate, insert, swap_parts, change_numbers_in_the_header]


def with_right_checksums(data: Bytes) -> Bytes:
    """A PNG whose reader gets past the checksums, to the damage."""
    place = 8
    while place + 12 <= len(data):
        end = place + 8 + int.from_bytes(data[place : place + 4], "big")
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
    return data


def mutants(original: bytes, *, number: int, seed: int) -> list[bytes]:
    rng = np.random.default_rng(seed)
    found = []
    for count in range(number):
        data = MUTATIONS[count % len(MUTATIONS)](bytearray(original), rng)
        if data.startswith(b"\x89PNG") and rng.random() < 0.7:
            data = with_right_checksums(data)
        found.append(bytes(data))
    return found


@pytest.mark.parametrize("kind", FILES)
def test_damaged_images(kind: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decoded, refused = 0, 0
    for data in mutants(FILES[kind], number=NUM_MUTATIONS, seed=list(FILES).index(kind)):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                image = decode_image(data, max_side=MAX_SIDE)
            except ImageError:
                refused += 1
                continue
        decoded += 1
        assert image.pixels.dtype == np.uint8
        assert image.pixels.shape[2:] == (3,)
        assert 1 <= min(image.pixels.shape[:2]) <= max(image.pixels.shape[:2]) <= MAX_SIDE
        assert 1 <= image.original_height * image.original_width <= MAX_PIXELS
    assert min(decoded, refused) > NUM_MUTATIONS // 100, "the mutations are all too weak, or all too strong"
    # One image of the largest size that a header may claim.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 4 * MAX_PIXELS / 1024


def test_damaged_masks() -> None:
    decoded, refused = 0, 0
    for data in mutants(MASK, number=NUM_MUTATIONS, seed=99):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                mask = decode_mask(data)
            except ImageError:
                refused += 1
                continue
        decoded += 1
        assert mask.dtype == np.uint8
        assert mask.ndim == 2
        assert 1 <= mask.size <= MAX_PIXELS
    assert min(decoded, refused) > NUM_MUTATIONS // 100


def test_mutations_are_the_same_each_time() -> None:
    assert mutants(MASK, number=20, seed=1) == mutants(MASK, number=20, seed=1)
