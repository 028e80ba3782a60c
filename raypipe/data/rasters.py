"""Reads TIFF files by windows: of a file of any size only the tiles or strips that a window touches are fetched.

A raster has bands of 8 to 64 bit integers or floats. The networks see three of them, or one, as 8-bit RGB: 8-bit values
as they are, all others stretched between two percentiles of the whole raster, whatever window is read.
"""

import math
from collections.abc import Sequence
from functools import cached_property
from itertools import product
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import reduced_size
from raypipe.data.opening import ImageError
from raypipe.data.tiff import (
    Plane,
    Source,
    check_jpeg,
    check_layout,
    chosen_bands,
    copies,
    first_page,
    nodata_of,
    opened,
    reading,
)

PERCENTILES = (2.0, 98.0)
"""Of a band's values, between which it is stretched."""

_SAMPLED_SEGMENTS = 256
_SAMPLED_PIXELS = 2**22
_BYTES_AT_A_TIME = 32 * 2**20
_CACHED_BYTES = 128 * 2**20
_ROWS_AT_A_TIME = 256

Limits = tuple[tuple[float, float], ...]
"""The values that become 0 and 255, of each band that the networks see."""


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
        with opened(source) as tiff:
            first = first_page(tiff)
            check_layout(first)
            self.height, self.width = int(first.imagelength), int(first.imagewidth)
            self.num_bands = int(first.samplesperpixel)
            self.bands = chosen_bands(first, bands)
            self._nodata = nodata_of(first)
            self._inverted = first.photometric == 0
            planes = [Plane(first), *map(Plane, copies(tiff, first))]
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

    def _decoded(self, plane: Plane, index: int, data: bytes) -> NDArray[Any]:
        start, end = _bytes_of(plane, index)
        if len(data) < end - start:
            raise ImageError(
                f"damaged or truncated TIFF: segment {index} ends after {len(data)} of {end - start} bytes"
            )
        if plane.is_jpeg and data:
            check_jpeg(data, plane, index)
        with reading():
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


def _bytes_of(plane: Plane, index: int) -> tuple[int, int]:
    start = plane.offsets[index]
    return start, start + plane.sizes[index]
