"""Augments training images: pure functions of 8-bit arrays and a random generator.

Conventions: images are (H, W, 3) uint8 RGB. Pixels outside the image get the colour `fill`. Colours are changed later
(`raypipe.ops.jitter`), and only inside the image, because `fill` stands for "nothing". Cell (i, j) of a trimap belongs
to the pixels [8i, 8i + 8) × [8j, 8j + 8). Every function draws its random numbers in a fixed order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.images import resize_map
from raypipe.schema import GRID_STRIDE, IGNORE

Rectangle = tuple[int, int, int, int]
"""Top, left, height and width in pixels."""


def augmentation_rng(seed: int, epoch: int, image_id: str, *, repeat: int = 0) -> np.random.Generator:
    """Returns the random generator of an image in an epoch, which is the same on any worker and in any order."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{repeat}/{image_id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


class _Window(NamedTuple):
    """A run of `size` elements, with its start in the source and in the crop."""

    source: int
    target: int
    size: int

    @classmethod
    def draw(cls, length: int, crop: int, rng: np.random.Generator) -> "_Window":
        """Draws a window of a source that is longer than the crop, or else the place of the whole source in it."""
        offset = int(rng.integers(abs(length - crop) + 1))
        return cls(offset, 0, crop) if length >= crop else cls(0, offset, length)

    @property
    def cut(self) -> slice:
        """The window in the source."""
        return slice(self.source, self.source + self.size)


@dataclass(frozen=True)
class ResizedCrop:
    """A random size, window and mirroring of one image, to be applied alike to the image and all maps of it."""

    size: tuple[int, int]
    rows: _Window
    columns: _Window
    crop: int
    mirror: bool

    @classmethod
    def draw(
        cls, shape: Sequence[int], rng: np.random.Generator, *, crop: int, long_side: tuple[int, int]
    ) -> "ResizedCrop":
        """Draws the numbers for an image of shape (H, W, …).

        Args:
            shape: the image's.
            rng: generator from `augmentation_rng`.
            crop: side of the square result in pixels.
            long_side: smallest and largest length of the resized image's longer side in pixels, both included.

        Raises:
            ValueError: `long_side` or `crop` is impossible.
        """
        low, high = long_side
        if not 1 <= low <= high or crop < 1:
            raise ValueError(
                f"expected 1 <= smallest <= largest long side and a positive crop, got {long_side} and {crop}"
            )
        scale = int(rng.integers(low, high + 1)) / max(shape[:2])
        height, width = (max(1, round(side * scale)) for side in shape[:2])
        rows, columns = _Window.draw(height, crop, rng), _Window.draw(width, crop, rng)
        return cls((height, width), rows, columns, crop, bool(rng.integers(2)))

    @property
    def inside(self) -> Rectangle:
        """Where the image lies in the crop."""
        return _inside((self.rows.size, self.columns.size), self.rows, self.columns, crop=self.crop, mirror=self.mirror)

    def lay_image(self, pixels: NDArray[np.uint8], *, fill: Sequence[int]) -> NDArray[np.uint8]:
        """Returns the crop (crop, crop, 3) of the image.

        Args:
            pixels: (H, W, 3).
            fill: RGB colour around an image that is smaller than the crop; the image lies at a random place in it.
        """
        patch = self._cut(pixels, Image.Resampling.BILINEAR)
        return _lay(patch, self.rows, self.columns, crop=self.crop, mirror=self.mirror, fill=fill)

    def lay_map(
        self, values: NDArray[np.uint8], *, outside: int, resampling: Image.Resampling = Image.Resampling.BILINEAR
    ) -> NDArray[np.uint8]:
        """Returns the same crop (crop, crop) of a map (h, w) of any size that covers the image.

        Args:
            values: the map's.
            outside: the value outside the image.
            resampling: how the map is resized; NEAREST doesn't mix labels.
        """
        patch = self._cut(values, resampling)
        return _lay(patch, self.rows, self.columns, crop=self.crop, mirror=self.mirror, fill=outside)

    def _cut(self, values: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
        return resize_map(values, self.size, resampling)[self.rows.cut, self.columns.cut]


def augment_for_affinity(
    pixels: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    fill: Sequence[int],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], Rectangle]:
    """Crops and mirrors an image and its trimap at random, for training AffinityNet.

    The image is first padded at the right and bottom to a multiple of 8, and windows start at multiples of 8, so every
    cell of the trimap keeps exactly its own pixels, mirrored or not.

    Args:
        pixels: (H, W, 3).
        trimap: (ceil(H / 8), ceil(W / 8)), class ids or 255.
        rng: generator from `augmentation_rng`.
        crop: side of the square result in pixels, a multiple of 8.
        fill: RGB colour outside the image; the trimap is 255 there.

    Returns:
        (crop, crop, 3), (crop / 8, crop / 8), and where the image lies in the crop.

    Raises:
        ValueError: `crop` is not a multiple of 8, or the trimap isn't the image's.
    """
    height, width = pixels.shape[:2]
    grid = (-(-height // GRID_STRIDE), -(-width // GRID_STRIDE))
    if crop < GRID_STRIDE or crop % GRID_STRIDE:
        raise ValueError(
            f"expected a positive multiple of {GRID_STRIDE} as crop, such as {max(1, crop // 8) * 8}, got {crop}"
        )
    if trimap.shape != grid:
        raise ValueError(f"expected a trimap of {grid} for an image of {height} x {width}, got {trimap.shape}")
    cells = crop // GRID_STRIDE
    rows, columns = (_Window.draw(length, cells, rng) for length in grid)
    mirror = bool(rng.integers(2))
    labels = _lay(trimap[rows.cut, columns.cut], rows, columns, crop=cells, mirror=mirror, fill=IGNORE)
    rows, columns = (_Window(*(GRID_STRIDE * part for part in window)) for window in (rows, columns))
    patch = pixels[rows.cut, columns.cut]
    laid = _lay(patch, rows, columns, crop=crop, mirror=mirror, fill=fill)
    return laid, labels, _inside(patch.shape, rows, columns, crop=crop, mirror=mirror)


def _inside(shape: Sequence[int], rows: _Window, columns: _Window, *, crop: int, mirror: bool) -> Rectangle:
    height, width = shape[:2]
    return rows.target, crop - columns.target - width if mirror else columns.target, height, width


def _lay(
    patch: NDArray[np.uint8], rows: _Window, columns: _Window, *, crop: int, mirror: bool, fill: int | Sequence[int]
) -> NDArray[np.uint8]:
    """Lays a patch on a square of the fill colour or value, and mirrors the result."""
    canvas = np.empty((crop, crop, *patch.shape[2:]), np.uint8)
    canvas[:] = np.asarray(fill, np.uint8)
    canvas[rows.target : rows.target + patch.shape[0], columns.target : columns.target + patch.shape[1]] = patch
    return np.ascontiguousarray(canvas[:, ::-1]) if mirror else canvas
