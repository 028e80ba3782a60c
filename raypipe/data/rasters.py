"""Reads TIFF files by windows: of a file of any size only the tiles or strips that a window touches are fetched.

A raster has bands of 8 to 64 bit integers or floats. The networks see three of them, or one, as 8-bit RGB: 8-bit values
as they are, all others stretched between two percentiles of the whole raster, whatever window is read.

tifffile reads the headers and knows how segments (tiles or strips) are packed; the extra `raster` brings it.
"""

import io
import math
import struct
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from operator import index as as_index
from threading import Lock
from typing import IO, TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import MAX_PIXELS, MAX_SCENE_PIXELS, ImageError, reduced_size

if TYPE_CHECKING:
    from tifffile import TiffFile, TiffPage

PERCENTILES = (2.0, 98.0)
"""Of a band's values, between which it is stretched."""

_MAGIC = {b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"}
"""How TIFF and BigTIFF begin, little and big endian."""

_COMPRESSIONS = {1: "none", 5: "LZW", 7: "JPEG", 8: "deflate", 32946: "deflate", 32773: "PackBits", 50000: "zstd"}
"""Those that are read: all but JPEG unpack into memory of a size that the header states."""

_JPEG = 7
_GREY_IS_LIGHT, _RGB, _YCBCR = (1,), 2, 6
_GEOTIFF_TAGS = (33550, 33922, 34264, 34735, 34736, 34737)
"""Pixel scale, tie points, transformation, and the keys of the coordinate system with their two lists of values."""

_NODATA_TAG, _ORIENTATION_TAG = 42113, 274

_MAX_SEGMENT_BYTES = 3 * MAX_PIXELS
_MAX_OVERVIEWS = 32
_SAMPLED_SEGMENTS = 256
_SAMPLED_PIXELS = 2**22
_BYTES_AT_A_TIME = 32 * 2**20
_CACHED_BYTES = 128 * 2**20
_ROWS_AT_A_TIME = 256

DAMAGE = (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError, RuntimeError, struct.error)
"""Errors that tifffile and its decoders have been observed to raise on damaged bytes."""

Limits = tuple[tuple[float, float], ...]
"""The values that become 0 and 255, of each band that the networks see."""


class Source(Protocol):
    """Where a raster's bytes come from."""

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Opens the file, of which the header is read."""

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns the bytes from each start up to each end."""


@dataclass(frozen=True)
class InMemory:
    """A raster whose bytes are in memory."""

    data: bytes

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Opens the bytes."""
        return io.BytesIO(self.data)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Returns parts of them."""
        return [self.data[start:end] for start, end in ranges]


class GeoTag(NamedTuple):
    """A tag of a GeoTIFF as tifffile writes it."""

    code: int
    kind: int
    """Its data type, by TIFF's number."""
    length: int
    value: Any


def is_tiff(data: bytes) -> bool:
    """True if bytes begin as those of a TIFF file."""
    return data[:4] in _MAGIC


class _Plane:
    """One image of the file, the raster or a smaller copy of it, in segments."""

    def __init__(self, page: "TiffPage") -> None:
        self.height, self.width = page.imagelength, page.imagewidth
        self.samples, self.apart = page.samplesperpixel, page.planarconfig == 2
        assert page.dtype is not None  # looked at before
        self.dtype = page.dtype.newbyteorder("=")
        self.offsets, self.sizes = tuple(map(as_index, page.dataoffsets)), tuple(map(as_index, page.databytecounts))
        if page.is_tiled:
            self.rows, self.columns = page.tilelength, page.tilewidth
        else:
            self.rows, self.columns = min(page.rowsperstrip, self.height), self.width
        in_one = 1 if self.apart else self.samples
        if self.rows < 1 or self.columns < 1:
            raise ImageError(f"its segments are {self.columns} x {self.rows} pixels")
        if self.rows * self.columns * in_one * self.dtype.itemsize > _MAX_SEGMENT_BYTES:
            raise ImageError(
                f"its segments are {self.columns} x {self.rows} pixels, of {in_one} x {self.dtype}, which is more than "
                f"{_MAX_SEGMENT_BYTES:,} bytes each: write it in tiles (gdal_translate -co TILED=YES)"
            )
        self.down, self.across = -(-self.height // self.rows), -(-self.width // self.columns)
        expected = self.down * self.across * (self.samples if self.apart else 1)
        if not len(self.offsets) == len(self.sizes) == expected:
            raise ImageError(f"it has {len(self.offsets)} segments where its size asks for {expected}")
        if min(self.offsets) < 0 or not 0 <= min(self.sizes) <= max(self.sizes) <= _MAX_SEGMENT_BYTES:
            raise ImageError(f"its segments have up to {max(self.sizes):,} bytes; allowed are {_MAX_SEGMENT_BYTES:,}")
        self.tables: bytes | None = page.jpegtables
        self.is_jpeg = page.compression == _JPEG
        self.decode: Callable[..., Any] = page.decode

    @property
    def pixels_per_segment(self) -> int:
        return self.rows * self.columns


class Raster:
    """A TIFF file that is read by windows.

    Args:
        source: where its bytes come from.
        bands: numbers of the bands, from 1, that are red, green and blue, or of the one that is grey; None takes the
            three of an RGB file, or the only one.

    Raises:
        ImageError: it is damaged, or laid out in a way that isn't read by windows; the message says what to do.
    """

    def __init__(self, source: Source, bands: Sequence[int] | None = None) -> None:
        self._source = source
        with _opened(source) as tiff:
            first = _first(tiff)
            _check(first)
            self.height, self.width = int(first.imagelength), int(first.imagewidth)
            self.num_bands = int(first.samplesperpixel)
            self.bands = _chosen(first, bands)
            self._nodata = _nodata(first)
            self._inverted = first.photometric == 0
            planes = [_Plane(first), *map(_Plane, _copies(tiff, first))]
        self._planes = sorted(planes, key=lambda plane: -plane.height * plane.width)
        self._cache: dict[tuple[int, int], NDArray[Any]] = {}
        self._lock = Lock()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the bands' values."""
        return self._planes[0].dtype

    @cached_property
    def limits(self) -> Limits:
        """Percentiles of each band's values, between which they are stretched; (0, 255) for 8-bit values.

        They are taken of segments that lie evenly over the raster: of all of them, unless there are many.
        """
        if self.dtype == np.uint8:
            return ((0.0, 255.0),) * len(self.bands)
        values = self._sample()
        return tuple(self._between(values[:, band]) for band in range(len(self.bands)))

    def read(self, rows: slice, columns: slice, *, limits: Limits | None = None) -> NDArray[np.uint8]:
        """Reads a window as 8-bit RGB (height, width, 3).

        Args:
            rows: of the window, within the raster.
            columns: likewise.
            limits: those of the raster, where they are known already.

        Raises:
            ImageError: a segment is damaged.
            OSError: it can't be fetched.
        """
        return self._to_rgb(self._values(0, rows, columns), limits or self.limits)

    def reduced(self, max_side: int | None, *, limits: Limits | None = None) -> NDArray[np.uint8]:
        """The whole raster as 8-bit RGB, its longer side reduced to `max_side`.

        A smaller copy in the file (an overview) is taken where one is large enough.

        Raises:
            ImageError: a segment is damaged.
            OSError: it can't be fetched.
        """
        limits = limits or self.limits
        width, height = reduced_size(self.width, self.height, max_side)
        number = max(
            index for index, plane in enumerate(self._planes) if plane.width >= width and plane.height >= height
        )
        plane = self._planes[number]
        factor = max(1, min(plane.width // width, plane.height // height))
        step = max(1, max(plane.rows, _ROWS_AT_A_TIME) // factor) * factor
        whole = slice(0, plane.width)
        bands = []
        for start in range(0, plane.height, step):
            values = self._values(number, slice(start, min(start + step, plane.height)), whole)
            bands.append(np.array(Image.fromarray(self._to_rgb(values, limits)).reduce(factor)))
        image = Image.fromarray(np.concatenate(bands))
        if image.size != (width, height):
            box = (0, 0, plane.width / factor, plane.height / factor)  # the last block may hold fewer pixels
            image = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.array(image)

    def _to_rgb(self, values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
        shown = values if values.dtype == np.uint8 else self._stretched(values, limits)
        if self._inverted:
            shown = 255 - shown
        return np.repeat(shown, 3, axis=2) if shown.shape[2] == 1 else np.ascontiguousarray(shown)

    def _stretched(self, values: NDArray[Any], limits: Limits) -> NDArray[np.uint8]:
        shown = np.empty(values.shape, np.uint8)
        for band, (low, high) in enumerate(limits):
            missing = self._missing(values[..., band])
            one = values[..., band].astype(np.float64)
            scaled = np.clip((np.where(missing, low, one) - low) * (255 / (high - low)), 0, 255)
            shown[..., band] = np.rint(scaled).astype(np.uint8)
            shown[..., band][missing] = 0
        return shown

    def _missing(self, values: NDArray[Any]) -> NDArray[np.bool_]:
        missing: NDArray[np.bool_] = ~np.isfinite(values)
        if self._nodata is not None:
            missing |= values == self._nodata
        return missing

    def _between(self, values: NDArray[Any]) -> tuple[float, float]:
        known = values[~self._missing(values)].astype(np.float64)
        if not known.size:
            return 0.0, 1.0
        low, high = (float(value) for value in np.percentile(known, PERCENTILES, overwrite_input=True))
        return (low, high) if high > low else (low, low + 1)

    def _sample(self) -> NDArray[Any]:
        """Values (n, bands) of segments that lie evenly over the raster."""
        plane = self._planes[0]
        total = plane.down * plane.across
        chosen = np.unique(np.rint(np.linspace(0, total - 1, min(total, _SAMPLED_SEGMENTS))).astype(int)).tolist()
        step = math.ceil(math.sqrt(max(1, len(chosen) * plane.pixels_per_segment / _SAMPLED_PIXELS)))
        together = max(1, _BYTES_AT_A_TIME // (plane.pixels_per_segment * len(self.bands) * plane.dtype.itemsize))
        parts: list[NDArray[Any]] = []
        for start in range(0, len(chosen), together):
            segments = self._segments(0, chosen[start : start + together], keep=False)
            parts += [segment[::step, ::step].reshape(-1, len(self.bands)) for segment in segments]
        return np.concatenate(parts)

    def _values(self, number: int, rows: slice, columns: slice) -> NDArray[Any]:
        """Values (height, width, bands) of a window of one of the file's images."""
        plane = self._planes[number]
        down = range(rows.start // plane.rows, -(-rows.stop // plane.rows))
        across = range(columns.start // plane.columns, -(-columns.stop // plane.columns))
        window = np.zeros((rows.stop - rows.start, columns.stop - columns.start, len(self.bands)), plane.dtype)
        together = max(1, _BYTES_AT_A_TIME // (len(across) * plane.pixels_per_segment * window[:1, :1].nbytes))
        for start in range(down.start, down.stop, together):
            places = list(product(down[start - down.start :][:together], across))
            segments = self._segments(number, [y * plane.across + x for y, x in places])
            for (y, x), segment in zip(places, segments, strict=True):
                top, left = y * plane.rows, x * plane.columns
                up, bottom = max(rows.start, top), min(rows.stop, top + segment.shape[0])
                near, right = max(columns.start, left), min(columns.stop, left + segment.shape[1])
                window[up - rows.start : bottom - rows.start, near - columns.start : right - columns.start] = segment[
                    up - top : bottom - top, near - left : right - left
                ]
        return window

    def _segments(self, number: int, indices: Sequence[int], *, keep: bool = True) -> list[NDArray[Any]]:
        """The segments (rows, columns, bands) at places of an image, those at hand or fetched together."""
        with self._lock:
            found = {index: self._cache[number, index] for index in indices if (number, index) in self._cache}
        wanted = [index for index in indices if index not in found]
        found |= zip(wanted, self._fetched(number, wanted), strict=True)
        if keep:
            self._keep({(number, index): found[index] for index in wanted})
        return [found[index] for index in indices]

    def _keep(self, segments: dict[tuple[int, int], NDArray[Any]]) -> None:
        with self._lock:
            self._cache |= segments
            taken = sum(segment.nbytes for segment in self._cache.values())
            while taken > _CACHED_BYTES and len(self._cache) > len(segments):
                oldest = next(iter(self._cache))
                taken -= self._cache.pop(oldest).nbytes

    def _fetched(self, number: int, places: Sequence[int]) -> list[NDArray[Any]]:
        plane = self._planes[number]
        each = plane.down * plane.across
        firsts = [(band - 1) * each for band in dict.fromkeys(self.bands)] if plane.apart else [0]
        ranges = {first + place: _bytes_of(plane, first + place) for place in places for first in firsts}
        contents = dict(zip(ranges, self._source.read([*ranges.values()]), strict=True))
        segments = []
        for place in places:
            parts = [self._decoded(plane, first + place, contents[first + place]) for first in firsts]
            if plane.apart:
                by_band = dict(zip(dict.fromkeys(self.bands), parts, strict=True))
                segments.append(np.concatenate([by_band[band] for band in self.bands], axis=2))
            else:
                chosen = [band - 1 for band in self.bands]
                whole = chosen == list(range(plane.samples))
                segments.append(parts[0] if whole else np.ascontiguousarray(parts[0][..., chosen]))
        return segments

    def _decoded(self, plane: _Plane, index: int, data: bytes) -> NDArray[Any]:
        start, end = _bytes_of(plane, index)
        if len(data) < end - start:
            raise ImageError(
                f"damaged or truncated TIFF: segment {index} ends after {len(data)} of {end - start} bytes"
            )
        if plane.is_jpeg and data:
            _check_jpeg(data, plane, index)
        with _reading():
            # A segment of no bytes holds no data: that is how sparse files are written.
            segment, place, shape = plane.decode(data or None, index, jpegtables=plane.tables)
            if segment is None:
                fill = 0 if self._nodata is None else self._nodata
                kept = self._nodata is not None and _fits(fill, plane.dtype)
                return np.full(shape[1:], fill if kept else 0, plane.dtype)
            height, width = min(shape[1], plane.height - place[2]), min(shape[2], plane.width - place[3])
            values: NDArray[Any] = segment[0, :height, :width].astype(plane.dtype, copy=False)
        return values


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return True
    bounds = np.iinfo(dtype)
    return bool(np.isfinite(value)) and bounds.min <= value <= bounds.max


def _bytes_of(plane: _Plane, index: int) -> tuple[int, int]:
    start = plane.offsets[index]
    return start, start + plane.sizes[index]


@contextmanager
def _opened(source: Source) -> Iterator["TiffFile"]:
    """Opens a TIFF file, whose tags are read as they are asked for."""
    try:
        import imagecodecs  # noqa: F401 - without it tifffile unpacks without a limit
        from tifffile import TiffFile
    except ImportError as error:  # a missing library isn't the image's fault
        raise ModuleNotFoundError(
            "images.bands and images.tile need tifffile and imagecodecs: pip install 'raypipe-masks[raster]'"
        ) from error
    with _reading(), source.open() as file, TiffFile(file, name="raster") as tiff:
        yield tiff


def _first(tiff: "TiffFile") -> "TiffPage":
    page = tiff.pages.first
    if page.imagewidth < 1 or page.imagelength < 1:
        raise ImageError("TIFF without an image")
    return page


def _copies(tiff: "TiffFile", first: "TiffPage") -> Iterator["TiffPage"]:
    """Smaller copies of the image."""
    from tifffile import TiffPage

    for index in range(1, _MAX_OVERVIEWS):
        try:
            page = tiff.pages.get(index, validate=False)
        except IndexError:
            return
        if isinstance(page, TiffPage) and page.is_reduced and _is_copy(page, first):
            yield page


def _is_copy(page: "TiffPage", first: "TiffPage") -> bool:
    names = ("dtype", "samplesperpixel", "photometric")
    if page.subfiletype & 4 or page.compression not in _COMPRESSIONS or page.imagedepth != 1:
        return False
    return page.imagewidth < first.imagewidth and all(getattr(page, name) == getattr(first, name) for name in names)


def _check(page: "TiffPage") -> None:
    width, height = page.imagewidth, page.imagelength
    if width < 1 or height < 1 or width * height > MAX_SCENE_PIXELS:
        raise ImageError(
            f"{width} x {height} pixels; allowed are 1 to {MAX_SCENE_PIXELS:,} of a TIFF in tiles or strips: cut it"
        )
    if page.compression not in _COMPRESSIONS:
        raise ImageError(
            f"TIFF compression {int(page.compression)} isn't read by windows; {', '.join(_COMPRESSIONS.values())} are: "
            "write it so (gdal_translate -co COMPRESS=DEFLATE -co TILED=YES)"
        )
    bits = page.bitspersample
    if page.imagedepth != 1 or bits not in (8, 16, 32, 64) or page.dtype is None or page.dtype.kind not in "iuf":
        raise ImageError(f"TIFF of {bits} bits, {page.dtype}: bands are integers or floats of 8, 16, 32 or 64 bits")
    if page.photometric not in (0, *_GREY_IS_LIGHT, _RGB, _YCBCR) or (
        page.photometric == _YCBCR and page.compression != _JPEG
    ):
        raise ImageError(f"TIFF of colours {page.photometric!r}: save it as grey, RGB or plain bands")
    if (turned := page.tags.valueof(_ORIENTATION_TAG)) not in (None, 1):
        raise ImageError(f"TIFF of orientation {turned}: save it upright")


def _chosen(page: "TiffPage", bands: Sequence[int] | None) -> tuple[int, ...]:
    number = page.samplesperpixel
    if bands is None:
        if page.photometric in (_RGB, _YCBCR) and number >= 3:
            return 1, 2, 3
        if number == 1:
            return (1,)
        raise ImageError(
            f"TIFF of {number} bands: nothing says which are red, green and blue; images.bands does, such as [3,2,1]"
        )
    if max(bands) > number:
        raise ImageError(f"TIFF of {number} bands, but images.bands is {list(bands)}")
    return tuple(bands)


def geotags(source: Source) -> tuple[GeoTag, ...]:
    """What says where on Earth a TIFF file's image lies, whatever its layout; empty where nothing does.

    Raises:
        ImageError: the header is damaged.
    """
    with _opened(source) as tiff:
        first = _first(tiff)
        found = [tag for tag in map(first.tags.get, _GEOTIFF_TAGS) if tag is not None]
        return tuple(GeoTag(tag.code, int(tag.dtype), tag.count, tag.value) for tag in found)


def _nodata(page: "TiffPage") -> float | None:
    text = page.tags.valueof(_NODATA_TAG)
    try:
        return None if text is None else float(str(text).strip(" \0"))
    except ValueError:
        return None  # it marks no pixel of a numeric band


def _check_jpeg(data: bytes, plane: _Plane, index: int) -> None:
    """Makes sure that a JPEG has no more pixels than its segment, before memory is taken for it."""
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = (int.from_bytes(data[place + at : place + at + 2], "big") for at in (5, 7))
            if height <= plane.rows and width <= plane.columns:
                return
            raise ImageError(f"damaged TIFF: segment {index} is a JPEG of {width} x {height} pixels")
        place += 2 + length
    raise ImageError(f"damaged TIFF: segment {index} is no JPEG")


class _reading:  # noqa: N801 - used as a context manager
    """Makes ImageErrors of what tifffile raises on damaged bytes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, DAMAGE) and not isinstance(error, ImageError):
            text = str(error) if str(error).isascii() and str(error).isprintable() else type(error).__name__
            raise ImageError(f"damaged or truncated TIFF: {text[:200]}") from error
