"""Draws maps, affinities and masks on a photograph, small enough for a page.

Conventions: every drawing of an image has the size of its thumbnail, so that they can be laid side by side. A class has
the same colour in all drawings, whatever the number of classes. 255 (ignore) is white.
"""

import base64
import io
from functools import lru_cache
from itertools import count

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raypipe.ops.affinity import pair_offsets
from raypipe.schema import BACKGROUND, GRID_STRIDE, IGNORE, MAX_CLASSES

NUM_VOC_CLASSES = 20
MAX_SIDE = 320
"""Largest length in pixels of a picture's longer side where many stand on a page."""

_ORANGE = (255, 140, 0)


@lru_cache(maxsize=1)
def _all_colors() -> NDArray[np.uint8]:
    """Returns colours of the class ids 0..254: VOC's, then the candidates that differ most from all before them."""
    ids = np.arange(NUM_VOC_CLASSES + 1)
    shifts = np.arange(8)
    voc = [(((ids[:, None] >> (3 * shifts + channel)) & 1) << (7 - shifts)).sum(axis=1) for channel in range(3)]
    colors = np.stack(voc, axis=1).astype(np.uint8)
    steps = np.linspace(20, 235, 16).round()
    candidates = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(-1, 3).astype(np.uint8)
    places = _oklab(candidates)
    white = np.full((1, 3), 255, np.uint8)
    distances = np.linalg.norm(places[:, None] - _oklab(np.concatenate([colors, white])), axis=2).min(axis=1)
    chosen = []
    for _ in range(MAX_CLASSES - NUM_VOC_CLASSES):
        best = int(distances.argmax())
        chosen.append(candidates[best])
        distances = np.minimum(distances, np.linalg.norm(places - places[best], axis=1))
    return np.concatenate([colors, np.stack(chosen)])


def _oklab(colors: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Converts sRGB colours to Oklab, where distances are about as large as they look (Ottosson 2020)."""
    srgb = colors / 255.0
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    to_cones = np.array([[0.4122, 0.5363, 0.0514], [0.2119, 0.6807, 0.1074], [0.0883, 0.2817, 0.6300]])
    to_lab = np.array([[0.2105, 0.7936, -0.0041], [1.9780, -2.4286, 0.4506], [0.0259, 0.7828, -0.8087]])
    lab: NDArray[np.float64] = np.cbrt(linear @ to_cones.T) @ to_lab.T
    return lab


def palette(num_classes: int) -> NDArray[np.uint8]:
    """Returns the colours (num_classes + 1, 3) of background and classes.

    The first 20 classes have PASCAL VOC's colours, the others are generated; a class keeps its colour when classes are
    added after it.

    Raises:
        ValueError: there are more classes than an 8-bit mask holds.
    """
    if not 0 <= num_classes <= MAX_CLASSES:
        raise ValueError(f"expected num_classes in 0..{MAX_CLASSES}, got {num_classes}")
    return _all_colors()[: num_classes + 1].copy()


def thumbnail(pixels: NDArray[np.uint8], *, max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """Reduces a photograph (H, W, 3) to at most `max_side` pixels on its longer side."""
    height, width = pixels.shape[:2]
    factor = min(1.0, max_side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


def draw_cam(photo: NDArray[np.uint8], cam: NDArray[np.float32], class_ids: tuple[int, ...]) -> NDArray[np.uint8]:
    """Draws the heat of the strongest class at each pixel in that class's colour, on a grey photograph (H, W, 3).

    A thin line marks where the heat passes one half; without it, a class with a grey colour would hardly be visible.

    Args:
        photo: the thumbnail.
        cam: (K, h, w), 0..1, NaN where unknown, which is drawn as 0; it covers the photograph.
        class_ids: class ids of the K maps.
    """
    if len(cam) == 0:
        return _grey(photo).astype(np.uint8)
    full = np.stack([_resize(channel, photo.shape[:2]) for channel in np.nan_to_num(cam)]).clip(0, 1)
    ids = np.array(class_ids)[full.argmax(axis=0)]
    heat = full.max(axis=0)
    colored = _blend(_grey(photo), palette(MAX_CLASSES)[ids], 0.92 * heat)
    return _outline(colored, np.where(heat > 0.5, ids, BACKGROUND))


def draw_plane(photo: NDArray[np.uint8], plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws a map (h, w), 0..1, that covers the photograph, in grey (H, W, 3) at the thumbnail's size; white is 1."""
    grey = (255 * _resize(plane, photo.shape[:2]).clip(0, 1)).round().astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def draw_heat(photo: NDArray[np.uint8], plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Draws a map (h, w), 0..1, that covers the photograph, in orange on the grey photograph (H, W, 3)."""
    heat = _resize(plane, photo.shape[:2]).clip(0, 1)
    return _blend(_grey(photo), np.array(_ORANGE, np.uint8), 0.92 * heat)


def draw_region(photo: NDArray[np.uint8], shape: tuple[int, ...], box: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Draws a frame around cells of the grid on the photograph (H, W, 3).

    Args:
        photo: the thumbnail.
        shape: (height, width) of the image that the grid covers.
        box: first and last row, first and last column; the last ones are excluded.
    """
    factors = (photo.shape[0] / shape[0], photo.shape[1] / shape[1])
    top, bottom = (round(GRID_STRIDE * row * factors[0]) for row in box[:2])
    left, right = (round(GRID_STRIDE * column * factors[1]) for column in box[2:])
    framed = Image.fromarray(photo)
    corners = (left, top, min(right, photo.shape[1]) - 1, min(bottom, photo.shape[0]) - 1)
    ImageDraw.Draw(framed).rectangle(corners, outline=_ORANGE, width=3)
    return np.asarray(framed)


def draw_affinity(
    photo: NDArray[np.uint8], affinity: NDArray[np.float32], pixels_shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Draws boundaries (H, W, 3): dark where a cell's affinity to its eight neighbours is low.

        1 - mean_j (1 - W_ij)     stretched to the picture's own range

    Args:
        photo: the thumbnail.
        affinity: (num_offsets, h, w) at stride 8.
        pixels_shape: (height, width, ...) of the image; the grid may reach beyond its borders.

    Raises:
        ValueError: no radius has this number of offsets.
    """
    mean = mean_affinity(affinity)
    low, high = np.percentile(mean, (1, 99)) if mean.size else (0.0, 1.0)
    stretched = ((mean - low) / max(high - low, 1e-3)).clip(0, 1)
    height, width = pixels_shape[:2]
    box = (0.0, 0.0, width / GRID_STRIDE, height / GRID_STRIDE)
    grey = _resize(stretched, photo.shape[:2], box=box, resample=Image.Resampling.BICUBIC)
    return np.repeat((255 * grey.clip(0, 1)).astype(np.uint8)[..., None], 3, axis=2)


def mean_affinity(affinity: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns each cell's mean affinity (h, w) to its neighbours at a distance below 2 cells; 1 without neighbours.

    Raises:
        ValueError: no radius has this number of offsets.
    """
    num_offsets, height, width = affinity.shape
    radius = next(radius for radius in count(1) if len(pair_offsets(radius)) >= num_offsets)
    offsets = pair_offsets(radius)
    if len(offsets) != num_offsets:
        raise ValueError(f"affinity has {num_offsets} offsets, which no radius has; radius {radius} has {len(offsets)}")
    total, pairs = np.zeros((height, width)), np.zeros((height, width))
    for (dy, dx), plane in zip(offsets.tolist(), affinity, strict=True):
        if dy**2 + dx**2 >= 4 or dy >= height or abs(dx) >= width:
            continue
        first = (slice(0, height - dy), slice(max(0, -dx), width - max(0, dx)))
        second = (slice(dy, height), slice(max(0, dx), width + min(0, dx)))
        for cells in (first, second):
            total[cells] += plane[first]
            pairs[cells] += 1
    return np.where(pairs > 0, total / np.maximum(pairs, 1), 1.0).astype(np.float32)


def draw_mask(photo: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Draws classes in their colours, outlined, on a grey photograph; 255 is white, background shows the photograph."""
    height, width = photo.shape[:2]
    ids = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
    colors = np.concatenate([palette(MAX_CLASSES), np.full((1, 3), 255, np.uint8)])[ids]
    alpha = np.full(ids.shape, 0.72)
    alpha[ids == IGNORE] = 1.0
    alpha[ids == BACKGROUND] = 0.0
    return _outline(_blend(_grey(photo), colors, alpha), ids)


def data_uri(picture: NDArray[np.uint8], *, quality: int = 78) -> str:
    """Returns the picture as a WebP data URI."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "WEBP", quality=quality, method=4)
    return as_uri(buffer.getvalue(), "image/webp")


def as_uri(data: bytes, kind: str) -> str:
    """Returns a picture's file as a data URI; as a picture, an SVG can neither run scripts nor style the page."""
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _grey(photo: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Turns the photograph into middle greys, on which all colours are visible; white is reserved for "ignore"."""
    grey = photo.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    return np.repeat((60 + 0.6 * grey)[..., None], 3, axis=2)


def _blend(base: NDArray[np.float32], colors: NDArray[np.uint8], alpha: NDArray[np.floating]) -> NDArray[np.uint8]:
    weight = alpha[..., None]
    return (base * (1 - weight) + colors * weight).round().astype(np.uint8)


def _outline(picture: NDArray[np.uint8], ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """Darkens the pixels above and left of a change of class, unless one side is ignored, which is a line by itself."""
    below, right = ids[:-1] != ids[1:], ids[:, :-1] != ids[:, 1:]
    edge = np.zeros(ids.shape, bool)
    edge[:-1] |= below & (ids[:-1] != IGNORE) & (ids[1:] != IGNORE)
    edge[:, :-1] |= right & (ids[:, :-1] != IGNORE) & (ids[:, 1:] != IGNORE)
    return np.where(edge[..., None], picture // 3, picture)


def _resize(
    plane: NDArray[np.float32],
    shape: tuple[int, ...],
    *,
    box: tuple[float, float, float, float] | None = None,
    resample: Image.Resampling = Image.Resampling.BILINEAR,
) -> NDArray[np.float32]:
    """Resizes a float plane to (height, width)."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), resample, box=box), dtype=np.float32)
