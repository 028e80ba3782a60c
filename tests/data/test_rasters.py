import io
import random
import resource
import struct
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

from rasters import PLACE, nodata, tiff

from raypipe.data import rasters
from raypipe.data.images import decode_image
from raypipe.data.opening import MAX_SCENE_PIXELS, ImageError
from raypipe.data.rasters import Raster
from raypipe.data.tiff import InMemory, geotags, is_tiff

HEIGHT, WIDTH = 150, 201
RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
SIXTEEN = RNG.integers(300, 9000, (HEIGHT, WIDTH, 5), dtype=np.uint16)


def open_bytes(data: bytes, bands: Sequence[int] | None = None) -> Raster:
    return Raster(InMemory(data), bands)


def whole(raster: Raster) -> NDArray[np.uint8]:
    return raster.read(slice(0, raster.height), slice(0, raster.width))


def stretched(values: NDArray[Any]) -> NDArray[np.uint8]:
    """By hand: the 2nd percentile becomes 0, the 98th 255."""
    low, high = np.percentile(values.astype(float), [2, 98])
    return np.rint(np.clip((values.astype(float) - low) * (255 / (high - low)), 0, 255)).astype(np.uint8)


LAYOUTS: dict[str, dict[str, Any]] = {
    "tiles": {},
    "tiles that aren't square": {"tile": (32, 128)},
    "one tile": {"tile": (256, 256)},
    "strips": {"rowsperstrip": 7},
    "strips of one row": {"rowsperstrip": 1},
    "one strip": {"rowsperstrip": HEIGHT},
    "big endian": {"byteorder": ">"},
    "BigTIFF": {"bigtiff": True},
    "BigTIFF, big endian, strips": {"bigtiff": True, "byteorder": ">", "rowsperstrip": 16},
    "deflate": {"compression": "zlib"},
    "deflate with predictor": {"compression": "zlib", "predictor": True},
    "LZW": {"compression": "lzw", "predictor": True},
    "LZW in strips": {"compression": "lzw", "rowsperstrip": 9},
    "PackBits": {"compression": "packbits"},
    "zstd": {"compression": "zstd"},
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_hold_the_same_pixels(name: str) -> None:
    raster = open_bytes(tiff(RGB, **{"photometric": "rgb", **LAYOUTS[name]}))
    assert (raster.height, raster.width, raster.num_bands) == (HEIGHT, WIDTH, 3)
    assert np.array_equal(whole(raster), RGB)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_hold_the_same_sixteen_bit_bands(name: str) -> None:
    raster = open_bytes(tiff(SIXTEEN, **LAYOUTS[name]), [4, 2, 5])
    expected = np.stack([stretched(SIXTEEN[..., band]) for band in (3, 1, 4)], axis=2)
    assert np.array_equal(whole(raster), expected)


@pytest.mark.parametrize("rows_per_strip", [None, 10])
def test_bands_may_lie_apart(rows_per_strip: int | None) -> None:
    options: dict[str, Any] = {"planarconfig": "separate", "photometric": "minisblack"}
    if rows_per_strip:
        options["rowsperstrip"] = rows_per_strip
    apart = open_bytes(tiff(np.moveaxis(SIXTEEN, 2, 0), **options), [4, 2, 4])
    assert np.array_equal(whole(apart), whole(open_bytes(tiff(SIXTEEN), [4, 2, 4])))


def test_any_window_is_a_part_of_the_whole() -> None:
    for options in ({}, {"rowsperstrip": 11}):
        raster = open_bytes(tiff(SIXTEEN, **options), [1, 2, 3])
        full = whole(raster)
        for _ in range(50):
            top, bottom = sorted(RNG.choice(HEIGHT + 1, 2, replace=False).tolist())
            left, right = sorted(RNG.choice(WIDTH + 1, 2, replace=False).tolist())
            window = raster.read(slice(top, bottom), slice(left, right))
            assert np.array_equal(window, full[top:bottom, left:right])


def test_only_the_segments_of_a_window_are_fetched() -> None:
    asked: list[tuple[int, int]] = []

    class Counted(InMemory):
        def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
            asked.extend(ranges)
            return super().read(ranges)

    raster = Raster(Counted(tiff(RGB, photometric="rgb")))
    raster.read(slice(10, 20), slice(70, 130))
    assert len(asked) == 2  # tiles (0, 1) and (0, 2)
    raster.read(slice(0, 64), slice(64, 192))
    assert len(asked) == 2  # which are at hand
    raster.read(slice(63, 65), slice(0, 1))
    assert len(asked) == 4


def test_eight_bit_values_stay_and_bands_are_chosen() -> None:
    data = tiff(RGB, photometric="rgb")
    assert np.array_equal(whole(open_bytes(data, [3, 2, 1])), RGB[..., ::-1])
    grey = whole(open_bytes(data, [2]))
    assert np.array_equal(grey, np.repeat(RGB[..., 1:2], 3, axis=2))
    assert np.array_equal(whole(open_bytes(data)), decode_image(data, max_side=None).pixels)


def test_one_band_is_grey() -> None:
    values = SIXTEEN[..., 0]
    for bands in (None, [1]):
        assert np.array_equal(whole(open_bytes(tiff(values), bands))[..., 2], stretched(values))


def test_white_may_be_zero() -> None:
    data = tiff(RGB[..., 0], photometric="miniswhite")
    assert np.array_equal(whole(open_bytes(data))[..., 0], 255 - RGB[..., 0])


VALUES: dict[str, NDArray[Any]] = {
    "int16 below zero": RNG.integers(-3000, 3000, (HEIGHT, WIDTH), dtype=np.int16),
    "int8": RNG.integers(-100, 100, (HEIGHT, WIDTH), dtype=np.int8),
    "uint32": RNG.integers(10**6, 4 * 10**9, (HEIGHT, WIDTH), dtype=np.uint32),
    "int32": RNG.integers(-(10**6), 10**6, (HEIGHT, WIDTH), dtype=np.int32),
    "uint64": RNG.integers(0, 2**40, (HEIGHT, WIDTH), dtype=np.uint64),
    "float32": RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float32),
    "float64": RNG.normal(size=(HEIGHT, WIDTH)) * 1e-30,
    "float16": RNG.normal(size=(HEIGHT, WIDTH)).astype(np.float16),
    "twelve bits in sixteen": RNG.integers(0, 4096, (HEIGHT, WIDTH), dtype=np.uint16),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("order", ["<", ">"])
def test_values_of_any_kind_are_stretched(name: str, order: str) -> None:
    values = VALUES[name]
    found = whole(open_bytes(tiff(values, byteorder=order)))
    assert np.array_equal(found[..., 0], stretched(values))
    assert (found.min(), found.max()) == (0, 255)


def test_floats_have_a_predictor_of_their_own() -> None:
    values = VALUES["float32"]
    for options in ({}, {"byteorder": ">"}):
        data = tiff(values, compression="zlib", predictor=3, **options)
        assert np.array_equal(whole(open_bytes(data))[..., 0], stretched(values))


@pytest.mark.parametrize(
    ("value", "kind"), [(0, np.uint16), (65535, np.uint16), (-32768, np.int16), (-9999, np.float32)]
)
def test_pixels_without_data_count_for_nothing_and_are_black(value: int, kind: type) -> None:
    values = RNG.integers(1000, 2000, (HEIGHT, WIDTH)).astype(kind)
    known = values.copy()
    values[:60] = value
    found = whole(open_bytes(tiff(values, extratags=[nodata(value)])))[..., 0]
    low, high = np.percentile(known[60:].astype(float), [2, 98])
    raster = open_bytes(tiff(values, extratags=[nodata(value)]))
    assert raster.limits == ((low, high),)
    assert (found[:60] == 0).all()
    assert found[60:].max() == 255
    without = open_bytes(tiff(values))
    assert without.limits != raster.limits


def test_nan_and_infinity_are_no_data() -> None:
    values = VALUES["float32"].copy()
    values[::3], values[1, :], values[4, :] = np.nan, np.inf, -np.inf
    raster = open_bytes(tiff(values, extratags=[nodata("nan")]))
    known = values[np.isfinite(values)].astype(float)
    assert raster.limits == (tuple(np.percentile(known, [2, 98])),)
    assert (whole(raster)[::3] == 0).all()


@pytest.mark.parametrize("values", [np.full((70, 70), 7, np.uint16), np.full((70, 70), np.nan, np.float32)])
def test_a_band_of_one_value_or_none_is_black(values: NDArray[Any]) -> None:
    assert (whole(open_bytes(tiff(values))) == 0).all()


def test_a_text_that_is_no_number_marks_no_pixel() -> None:
    values = VALUES["int16 below zero"]
    assert np.array_equal(whole(open_bytes(tiff(values, extratags=[nodata("none")])))[..., 0], stretched(values))


def test_limits_are_those_of_the_whole_whatever_was_read_before() -> None:
    values = np.linspace(0, 60000, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    raster = open_bytes(tiff(values))
    corner = raster.read(slice(0, 8), slice(0, 8))
    assert corner.max() < 10  # dark in the whole, although it has bright and dark pixels of its own
    assert np.array_equal(corner, whole(open_bytes(tiff(values)))[:8, :8])


def test_limits_of_many_segments_are_taken_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.normal(2000, 300, (HEIGHT * 4, WIDTH * 4)).astype(np.uint16)
    exact = open_bytes(tiff(values)).limits
    monkeypatch.setattr(rasters, "_SAMPLED_SEGMENTS", 20)
    monkeypatch.setattr(rasters, "_SAMPLED_PIXELS", 20_000)
    for options in ({}, {"rowsperstrip": 3}, {"tile": (512, 512)}):
        raster = open_bytes(tiff(values, **options))
        assert raster.limits == open_bytes(tiff(values, **options)).limits
        assert np.abs(np.subtract(raster.limits, exact)).max() < 20


@pytest.mark.parametrize("max_side", [201, 200, 100, 67, 50, 10, 1, None])
@pytest.mark.parametrize("options", [{}, {"rowsperstrip": 4}])
def test_the_reduced_raster_is_about_what_pillow_makes(max_side: int | None, options: dict[str, Any]) -> None:
    smooth = np.clip(np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) / 1.5, 0, 255).astype(np.uint8)
    data = tiff(np.repeat(smooth[..., None], 3, axis=2), photometric="rgb", **options)
    found, expected = open_bytes(data).reduced(max_side), decode_image(data, max_side=max_side).pixels
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected.astype(int)).max() <= 3


def test_overviews_are_taken_where_they_are_large_enough() -> None:
    buffer = io.BytesIO()
    from tifffile import TiffWriter

    with TiffWriter(buffer) as file:
        file.write(RGB, photometric="rgb", tile=(64, 64), metadata=None)
        for factor, colour in ((2, 50), (4, 100)):
            small = np.full((-(-HEIGHT // factor), -(-WIDTH // factor), 3), colour, np.uint8)
            file.write(small, photometric="rgb", tile=(64, 64), subfiletype=1, metadata=None)
    raster = open_bytes(buffer.getvalue())
    means = {side: raster.reduced(side).mean().round() for side in (20, 50, 51, 100, 101)}
    assert means == {20: 100, 50: 100, 51: 100, 100: 50, 101: 50}
    assert raster.reduced(102).mean() != 50
    assert np.array_equal(whole(raster), RGB)


def test_a_mask_among_the_pages_is_no_overview() -> None:
    buffer = io.BytesIO()
    from tifffile import TiffWriter

    with TiffWriter(buffer) as file:
        file.write(RGB, photometric="rgb", tile=(64, 64), metadata=None)
        file.write(np.zeros((75, 100), np.uint8), photometric="minisblack", subfiletype=1, metadata=None)
        file.write(np.zeros((75, 100, 3), np.uint8), photometric="rgb", metadata=None)  # another image
    assert open_bytes(buffer.getvalue()).reduced(50).mean() > 100


def test_jpeg_in_tiles() -> None:
    smooth = np.repeat(np.add.outer(np.arange(HEIGHT), np.arange(WIDTH))[..., None] // 2, 3, axis=2).astype(np.uint8)
    strips = io.BytesIO()
    Image.fromarray(smooth).save(strips, "TIFF", compression="jpeg", quality=95)
    for data in (strips.getvalue(), tiff(smooth, photometric="rgb", compression="jpeg")):
        found = whole(open_bytes(data))
        assert np.abs(found.astype(int) - smooth).max() < 12
        assert np.abs(found.astype(int) - decode_image(data, max_side=None).pixels).max() < 3


def test_a_sparse_file_holds_no_data() -> None:
    data = bytearray(tiff(SIXTEEN[..., 0]))
    raster = open_bytes(bytes(data))
    plane = raster._planes[0]
    plane.sizes = (0, *plane.sizes[1:])
    assert (raster._values(0, slice(0, 64), slice(0, 64)) == 0).all()


REFUSED: dict[str, tuple[bytes, str]] = {
    "two bands": (tiff(SIXTEEN[..., :2]), r"2 bands: nothing says which are red, green and blue; images.bands does"),
    "four bands": (tiff(SIXTEEN[..., :4]), r"4 bands: nothing says"),
    "palette": (
        tiff(RGB[..., 0], photometric="palette", colormap=np.zeros((3, 256), np.uint16)),
        "save it as grey, RGB or plain bands",
    ),
    "one bit": (tiff(RGB[..., 0] > 9), "bands are integers or floats of 8, 16, 32 or 64 bits"),
    "complex": (tiff(VALUES["float32"].astype(np.complex64)), "bands are integers or floats"),
    "turned": (tiff(RGB, photometric="rgb", extratags=[(274, 3, 1, 6, True)]), "orientation 6: save it upright"),
    "JPEG 2000": (tiff(RGB, photometric="rgb", compression="jpeg2000"), r"isn't read by windows; none, LZW, JPEG"),
    "no TIFF": (b"II*\0" + bytes(20), "damaged or truncated TIFF|no image"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cant_be_read_is_refused_with_a_way_out(name: str) -> None:
    data, message = REFUSED[name]
    with pytest.raises(ImageError, match=message):
        open_bytes(data)


@pytest.mark.parametrize("bands", [[6], [1, 2, 9]])
def test_bands_that_arent_there_are_refused(bands: list[int]) -> None:
    with pytest.raises(ImageError, match=r"5 bands, but images.bands is \["):
        open_bytes(tiff(SIXTEEN), bands)


def with_tag(data: bytes, code: int, value: int) -> bytes:
    """A little endian TIFF whose first tag of that code has another value."""
    (offset,) = struct.unpack_from("<I", data, 4)
    (number,) = struct.unpack_from("<H", data, offset)
    changed = bytearray(data)
    for index in range(number):
        place = offset + 2 + 12 * index
        if struct.unpack_from("<H", data, place)[0] == code:
            kind = struct.unpack_from("<H", data, place + 2)[0]
            struct.pack_into("<I" if kind == 4 else "<H", changed, place + 8, value)
            return bytes(changed)
    raise AssertionError(code)


def test_claims_cost_no_memory() -> None:
    data = tiff(RGB[..., 0], rowsperstrip=HEIGHT)
    huge = with_tag(with_tag(data, 256, 60_000), 257, 60_000)
    with pytest.raises(ImageError, match=f"allowed are 1 to {MAX_SCENE_PIXELS:,}"):
        open_bytes(huge)
    long_strip = with_tag(with_tag(with_tag(data, 256, 30_000), 257, 30_000), 278, 30_000)
    with pytest.raises(ImageError, match=r"its segments are 30000 x 30000 pixels.*write it in tiles"):
        open_bytes(long_strip)
    with pytest.raises(ImageError, match="segments where its size asks for"):
        open_bytes(with_tag(tiff(RGB[..., 0], rowsperstrip=10), 257, 5000))


def test_a_jpeg_larger_than_its_segment_is_refused() -> None:
    smooth = np.zeros((64, 64, 3), np.uint8)
    data = tiff(smooth, photometric="rgb", compression="jpeg")
    place = data.index(b"\xff\xc0")
    bomb = data[: place + 5] + struct.pack(">HH", 60_000, 60_000) + data[place + 9 :]
    with pytest.raises(ImageError, match="a JPEG of 60000 x 60000 pixels"):
        whole(open_bytes(bomb))


@pytest.mark.parametrize("name", ["zlib", "lzw", "packbits", "zstd"])
def test_a_segment_that_unpacks_to_more_than_it_may_takes_no_memory(name: str) -> None:
    import imagecodecs

    raster = open_bytes(tiff(np.zeros((64, 64), np.uint8), compression=name))
    plane = raster._planes[0]
    bomb = getattr(imagecodecs, f"{name}_encode")(bytes(10**6 if name == "packbits" else 2 * 10**8))
    plane.sizes = (len(bomb),)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(ImageError):  # LZW's decoder stops where it has enough, the others refuse
        assert raster._decoded(plane, 0, bomb).shape == (64, 64, 1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1000  # KiB


@pytest.mark.parametrize("seed", range(8))
def test_damaged_files_give_an_image_or_an_image_error(seed: int) -> None:
    rng = random.Random(seed)
    base = [
        tiff(SIXTEEN, compression="zlib", predictor=True, extratags=[nodata(0), *PLACE]),
        tiff(RGB, photometric="rgb", compression="lzw", rowsperstrip=20),
        tiff(RGB, photometric="ycbcr", compression="jpeg"),
    ][seed % 3]
    for _ in range(60):
        data = bytearray(base)
        for _ in range(rng.randint(1, 8)):
            start = rng.choice([0, len(data) - 600, len(data) // 2])
            data[min(len(data) - 1, max(0, start + rng.randrange(600)))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        for bands in (None, [1, 2, 3]):
            with suppress(ImageError):
                raster = open_bytes(bytes(data), bands)
                if raster.height * raster.width < 10**6:
                    raster.reduced(50)
                    raster.read(slice(0, min(20, raster.height)), slice(0, min(20, raster.width)))
        with suppress(ImageError):
            geotags(InMemory(bytes(data)))


def test_geotags_are_found_whatever_the_layout() -> None:
    for data in (tiff(SIXTEEN, extratags=PLACE), tiff(RGB[..., 0] > 3, extratags=PLACE, byteorder=">")):
        found = geotags(InMemory(data))
        assert [(tag.code, tag.value) for tag in found] == [(code, value) for code, _, _, value, _ in PLACE]
    assert geotags(InMemory(tiff(RGB, photometric="rgb"))) == ()


def test_is_tiff() -> None:
    kinds = [{"byteorder": order, "bigtiff": big} for order in "<>" for big in (True, False)]
    assert all(is_tiff(tiff(RGB, photometric="rgb", **options)) for options in kinds)
    jpeg = io.BytesIO()
    Image.fromarray(RGB).save(jpeg, "JPEG")
    assert not is_tiff(jpeg.getvalue())
    assert not is_tiff(b"")


def test_the_cache_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rasters, "_CACHED_BYTES", 3 * 64 * 64 * 3)
    raster = open_bytes(tiff(RGB, photometric="rgb"))
    for top in range(0, HEIGHT, 64):
        for left in range(0, WIDTH, 64):
            raster.read(slice(top, min(top + 64, HEIGHT)), slice(left, min(left + 64, WIDTH)))
            assert sum(segment.nbytes for segment in raster._cache.values()) <= 3 * 64 * 64 * 3
    assert np.array_equal(whole(raster), RGB)
