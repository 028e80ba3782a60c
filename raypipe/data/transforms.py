"""Augments training images: pure functions of 8-bit arrays and a random generator.

Conventions: images are (H, W, 3) uint8 RGB. Pixels outside the image get the colour `fill`, which isn't jittered
because it stands for "nothing". Cell (i, j) of a trimap belongs to the pixels [8i, 8i + 8) × [8j, 8j + 8). Every
function draws its random numbers in a fixed order.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from raypipe.data.jitter import DEFAULT_JITTER, color_jitter
from raypipe.schema import GRID_STRIDE, IGNORE


def augmentation_rng(seed: int, epoch: int, image_id: str, *, repeat: int = 0) -> np.random.Generator:
    """Returns the random generator of an image in an epoch, which is the same on any worker and in any order."""
    digest = hashlib.sha256(f"{seed}/{epoch}/{repeat}/{image_id}".encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "little"))


def augment_for_classifier(
    pixels: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    long_side: tuple[int, int],
    fill: Sequence[int],
    jitter: Sequence[float] | None = DEFAULT_JITTER,
) -> NDArray[np.uint8]:
    """Resizes, crops, mirrors and recolours an image at random, for training the classifier.

    Args:
        pixels: (H, W, 3).
        rng: generator from `augmentation_rng`.
        crop: side of the square result in pixels.
        long_side: smallest and largest length of the resized image's longer side in pixels, both included.
        fill: RGB colour around an image that is smaller than the crop; the image lies at a random place in it.
        jitter: see `color_jitter`; None keeps the colours.

    Returns:
        (crop, crop, 3).

    Raises:
        ValueError: `long_side` or `crop` is impossible.
    """
    placed = _ResizedCrop.draw((pixels.shape[0], pixels.shape[1]), rng, crop=crop, long_side=long_side)
    return placed.image(pixels, rng, fill=fill, jitter=jitter)


def augment_for_segmenter(
    pixels: NDArray[np.uint8],
    mask: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    long_side: tuple[int, int],
    fill: Sequence[int],
    jitter: Sequence[float] | None = DEFAULT_JITTER,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """As `augment_for_classifier`, of an image together with its mask, whose labels aren't mixed where it is resized.

    Args:
        pixels: (H, W, 3).
        mask: (H, W), class ids or 255.
        rng: generator from `augmentation_rng`.
        crop: side of the square result in pixels.
        long_side: smallest and largest length of the resized image's longer side in pixels, both included.
        fill: RGB colour outside the image; the mask is 255 there.
        jitter: see `color_jitter`; None keeps the colours.

    Returns:
        (crop, crop, 3) and (crop, crop).

    Raises:
        ValueError: `long_side` or `crop` is impossible, or the mask isn't of the image's size.
    """
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"expected a mask of the image's size {pixels.shape[:2]}, got {mask.shape}")
    placed = _ResizedCrop.draw((pixels.shape[0], pixels.shape[1]), rng, crop=crop, long_side=long_side)
    image = placed.image(pixels, rng, fill=fill, jitter=jitter)
    return image, placed.lay(mask, outside=IGNORE, resampling=Image.Resampling.NEAREST)


def augment_with_saliency(
    pixels: NDArray[np.uint8],
    saliency: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    long_side: tuple[int, int],
    fill: Sequence[int],
    jitter: Sequence[float] | None = DEFAULT_JITTER,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Augments an image as `augment_for_classifier` does, and its saliency map alike.

    Args:
        pixels: (H, W, 3).
        saliency: (h, w) of any size; it covers the image.
        rng: generator from `augmentation_rng`.
        crop: as in `augment_for_classifier`.
        long_side: as in `augment_for_classifier`.
        fill: RGB colour outside the image; the saliency is 0 there.
        jitter: as in `augment_for_classifier`.

    Returns:
        (crop, crop, 3) and (crop, crop).

    Raises:
        ValueError: `long_side` or `crop` is impossible.
    """
    placed = _ResizedCrop.draw((pixels.shape[0], pixels.shape[1]), rng, crop=crop, long_side=long_side)
    image = placed.image(pixels, rng, fill=fill, jitter=jitter)
    return image, placed.lay(saliency, outside=0, resampling=Image.Resampling.BILINEAR)


def augment_for_affinity(
    pixels: NDArray[np.uint8],
    trimap: NDArray[np.uint8],
    rng: np.random.Generator,
    *,
    crop: int,
    fill: Sequence[int],
    jitter: Sequence[float] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Crops and mirrors an image and its trimap at random, for training AffinityNet.

    The image is first padded at the right and bottom to a multiple of 8, and windows start at multiples of 8, so every
    cell of the trimap keeps exactly its own pixels, mirrored or not.

    Args:
        pixels: (H, W, 3).
        trimap: (ceil(H / 8), ceil(W / 8)), class ids or 255.
        rng: generator from `augmentation_rng`.
        crop: side of the square result in pixels, a multiple of 8.
        fill: RGB colour outside the image; the trimap is 255 there.
        jitter: see `color_jitter`; None keeps the colours.

    Returns:
        (crop, crop, 3) and (crop / 8, crop / 8).

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
    cell_rows = _crop_window(grid[0], cells, rng)
    cell_columns = _crop_window(grid[1], cells, rng)
    mirror = bool(rng.integers(2))
    rows, columns = cell_rows.scaled(GRID_STRIDE), cell_columns.scaled(GRID_STRIDE)
    patch = pixels[rows.source : rows.source + rows.size, columns.source : columns.source + columns.size]
    image = _finish(patch, rows, columns, rng, crop=crop, mirror=mirror, fill=fill, jitter=jitter)
    labels = np.full((cells, cells), IGNORE, np.uint8)
    labels[cell_rows.target_slice, cell_columns.target_slice] = trimap[
        cell_rows.source_slice, cell_columns.source_slice
    ]
    return image, np.ascontiguousarray(labels[:, ::-1]) if mirror else labels


class _Window:
    """A run of `size` elements, with its start in the source and in the crop."""

    def __init__(self, source: int, target: int, size: int) -> None:
        self.source, self.target, self.size = source, target, size

    @property
    def source_slice(self) -> slice:
        return slice(self.source, self.source + self.size)

    @property
    def target_slice(self) -> slice:
        return slice(self.target, self.target + self.size)

    def scaled(self, factor: int) -> "_Window":
        return _Window(self.source * factor, self.target * factor, self.size * factor)


def _crop_window(length: int, crop: int, rng: np.random.Generator) -> _Window:
    """Draws a window of a source that is longer than the crop, or else the place of the whole source in the crop."""
    offset = int(rng.integers(abs(length - crop) + 1))
    return _Window(offset, 0, crop) if length >= crop else _Window(0, offset, length)


@dataclass(frozen=True)
class _ResizedCrop:
    """A random size, window and mirroring, to be applied alike to all arrays of one image."""

    size: tuple[int, int]
    rows: _Window
    columns: _Window
    crop: int
    mirror: bool

    @classmethod
    def draw(
        cls, shape: tuple[int, int], rng: np.random.Generator, *, crop: int, long_side: tuple[int, int]
    ) -> "_ResizedCrop":
        low, high = long_side
        if not 1 <= low <= high or crop < 1:
            raise ValueError(
                f"expected 1 <= smallest <= largest long side and a positive crop, got {long_side} and {crop}"
            )
        scale = int(rng.integers(low, high + 1)) / max(shape)
        height, width = (max(1, round(side * scale)) for side in shape)
        rows = _crop_window(height, crop, rng)
        columns = _crop_window(width, crop, rng)
        return cls((height, width), rows, columns, crop, bool(rng.integers(2)))

    def image(
        self,
        pixels: NDArray[np.uint8],
        rng: np.random.Generator,
        *,
        fill: Sequence[int],
        jitter: Sequence[float] | None,
    ) -> NDArray[np.uint8]:
        """Returns the crop of the image with jittered colours."""
        patch = self._cut(pixels, Image.Resampling.BILINEAR)
        return _finish(
            patch, self.rows, self.columns, rng, crop=self.crop, mirror=self.mirror, fill=fill, jitter=jitter
        )

    def lay(self, values: NDArray[np.uint8], *, outside: int, resampling: Image.Resampling) -> NDArray[np.uint8]:
        """Returns the same crop of a map (h, w) that covers the image."""
        canvas = np.full((self.crop, self.crop), outside, np.uint8)
        canvas[self.rows.target_slice, self.columns.target_slice] = self._cut(values, resampling)
        return np.ascontiguousarray(canvas[:, ::-1]) if self.mirror else canvas

    def _cut(self, values: NDArray[np.uint8], resampling: Image.Resampling) -> NDArray[np.uint8]:
        image = Image.fromarray(values)
        height, width = self.size
        if image.size != (width, height):
            image = image.resize((width, height), resampling)
        return np.asarray(image)[self.rows.source_slice, self.columns.source_slice]


def _finish(
    patch: NDArray[np.uint8],
    rows: _Window,
    columns: _Window,
    rng: np.random.Generator,
    *,
    crop: int,
    mirror: bool,
    fill: Sequence[int],
    jitter: Sequence[float] | None,
) -> NDArray[np.uint8]:
    """Jitters a patch, lays it on a square of the fill colour, and mirrors the result."""
    if jitter is not None:
        patch = color_jitter(np.ascontiguousarray(patch), rng, strength=jitter)
    canvas = np.empty((crop, crop, 3), np.uint8)
    canvas[:] = np.asarray(fill, np.uint8)
    canvas[rows.target : rows.target + patch.shape[0], columns.target : columns.target + patch.shape[1]] = patch
    return np.ascontiguousarray(canvas[:, ::-1]) if mirror else canvas
