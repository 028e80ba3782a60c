"""Images that are read by windows, and which ones are.

A scene is a TIFF file longer than a tile: its masks are made tile by tile at its full size. Every other image is read
as a whole and reduced, as `raypipe.data.images` does it; of a TIFF whose bands are chosen, the reader is that of
rasters.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from raypipe import storage
from raypipe.config import Images
from raypipe.containers.place import split_place
from raypipe.data.images import DecodedImage, decode_image
from raypipe.data.rasters import Limits, Raster
from raypipe.data.tiff import GeoTag, InMemory, geotags, is_tiff
from raypipe.schema import GRID_STRIDE

_RASTERS_AT_HAND = 2
"""Each keeps some of its segments."""
_LIMITS_AT_HAND = 100_000
_VIEWS_AT_HAND = 256
_SMALL_VIEW = 512
"""Long side of views that are kept: a training looks at them in each epoch."""


@dataclass(frozen=True)
class InStorage:
    """A raster's bytes at a URI."""

    uri: str

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Opens the file, of which blocks are fetched."""
        return storage.open_blocks(self.uri)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Fetches ranges, over a network those close together by one request."""
        return storage.read_ranges(self.uri, ranges)


def read_geotags(uri: str) -> tuple[GeoTag, ...]:
    """What says where on Earth an image lies; empty for one that isn't a TIFF, or lies nowhere.

    Raises:
        OSError: it can't be fetched.
    """
    beginning = storage.read_many([uri], end=4)[uri]
    if isinstance(beginning, Exception):
        raise beginning
    if not is_tiff(beginning):
        return ()
    in_container = split_place(uri)[1] is not None
    with storage.awaited(uri):
        return geotags(InMemory(storage.read_bytes(uri)) if in_container else InStorage(uri))


class Window(NamedTuple):
    """A part of a scene that begins at multiples of 8 pixels."""

    top: int
    left: int
    height: int
    width: int
    scene: tuple[int, int]
    """The scene's (height, width)."""

    def cut(self, stride: int = 1) -> tuple[slice, slice]:
        """Its rows and columns in a grid of that stride over the scene."""
        bottom, right = self.top + self.height, self.left + self.width
        return slice(self.top // stride, -(-bottom // stride)), slice(self.left // stride, -(-right // stride))

    def part(self, values: NDArray[np.uint8], *, stride: int = 1) -> NDArray[np.uint8]:
        """Its part of a map of the scene.

        Raises:
            ValueError: the map isn't the scene's.
        """
        expected = tuple(-(-side // stride) for side in self.scene)
        if values.shape != expected:
            raise ValueError(f"a map of the scene is {values.shape} (height, width), the scene asks for {expected}")
        return values[self.cut(stride)]


@dataclass(frozen=True)
class Scene:
    """A TIFF file that is read by windows."""

    uri: str
    version: str
    """Changes when the file does; empty where its bytes are in memory."""
    bands: tuple[int, ...] | None
    raster: Raster
    limits: Limits
    tile: int | None
    """Side of its tiles; None where it is looked at as a whole, reduced."""

    @property
    def height(self) -> int:
        """Pixels."""
        return self.raster.height

    @property
    def width(self) -> int:
        """Pixels."""
        return self.raster.width

    @property
    def tiled(self) -> bool:
        """Whether it is longer than a tile."""
        return self.tile is not None and max(self.height, self.width) > self.tile

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Reads a window as RGB (height, width, 3); errors as of `Raster.read`."""
        return self.raster.read(rows, columns, limits=self.limits)

    def reduced(self, max_side: int | None) -> NDArray[np.uint8]:
        """The whole as RGB, reduced; errors as of `Raster.reduced`."""
        if not self.version or max_side is None or max_side > _SMALL_VIEW:
            return self.raster.reduced(max_side, limits=self.limits)
        return _view(self.uri, self.version, self.bands, self.limits, max_side).copy()

    def draw_tile(self, rng: np.random.Generator) -> Window:
        """Draws a window as large as a tile, or as the scene where that is smaller."""
        assert self.tile is not None
        height, width = min(self.tile, self.height), min(self.tile, self.width)
        top, left = (
            GRID_STRIDE * int(rng.integers((side - part) // GRID_STRIDE + 1))
            for side, part in ((self.height, height), (self.width, width))
        )
        return Window(top, left, height, width, (self.height, self.width))


def find_scenes(uris: Iterable[str], images: Images) -> dict[str, Scene | Exception]:
    """Finds the images that are read by windows, or says why they can't be; the others aren't in the result.

    Args:
        uris: of images.
        images: how images are read; with neither bands nor tiles no file is looked at.

    Raises:
        ModuleNotFoundError: tifffile is missing.
    """
    if not images.by_windows:
        return {}
    found: dict[str, Scene | Exception] = {}
    for uri, beginning in storage.read_many(uris, end=4).items():
        # Why another one can't be read is said where it is read as a whole.
        if isinstance(beginning, bytes) and is_tiff(beginning):
            try:
                scene = open_scene(uri, images)
            except (ValueError, OSError) as error:
                found[uri] = error
            else:
                if scene is not None:
                    found[uri] = scene
    return found


def open_scene(uri: str, images: Images, *, limits: Limits | None = None) -> Scene | None:
    """Opens a TIFF file to be read by windows; None where it is to be read as any image is.

    Args:
        uri: of the file.
        images: how images are read.
        limits: those of the file, where they are known already.

    Raises:
        ImageError: it is damaged, or can't be read by windows.
        OSError: it can't be fetched.
    """
    if split_place(uri)[1] is not None:
        raster, version = Raster(InMemory(storage.read_bytes(uri)), images.bands), ""
    else:
        version = storage.version(uri)
        raster = _raster(uri, version, images.bands)
    if images.bands is None and max(raster.height, raster.width) <= (images.tile or 0):
        return None
    if limits is None:
        limits = _limits(uri, version, images.bands) if version else raster.limits
    return Scene(uri, version, images.bands, raster, limits, images.tile)


def read_image(uri: str, images: Images) -> DecodedImage:
    """Reads an image for people to look at, reduced to `images.max_side` whether it is a scene or not.

    Raises:
        ImageError: it can't be decoded.
        OSError: it can't be fetched.
    """
    scene = find_scenes([uri], images).get(uri)
    if isinstance(scene, Exception):
        raise scene
    if scene is None:
        return decode_image(storage.read_bytes(uri), max_side=images.max_side)
    return DecodedImage(scene.reduced(images.max_side), scene.height, scene.width)


@lru_cache(_VIEWS_AT_HAND)
def _view(uri: str, version: str, bands: tuple[int, ...] | None, limits: Limits, max_side: int) -> NDArray[np.uint8]:
    return _raster(uri, version, bands).reduced(max_side, limits=limits)


@lru_cache(_RASTERS_AT_HAND)
def _raster(uri: str, version: str, bands: tuple[int, ...] | None) -> Raster:  # noqa: ARG001 - of a file that changed
    with storage.awaited(uri):
        return Raster(InStorage(uri), bands)


@lru_cache(_LIMITS_AT_HAND)
def _limits(uri: str, version: str, bands: tuple[int, ...] | None) -> Limits:
    return _raster(uri, version, bands).limits
