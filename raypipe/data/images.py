"""Decodes images and masks from files' bytes, and encodes masks.

Conventions: pixels are RGB, 8 bit, rows first, after EXIF rotation. Transparent pixels are laid on white. Masks hold
class ids, never colours.
"""

import io
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from raypipe.data.depth import (
    Statement,
    UnknownRange,
    colours_from_deep,
    grey_from_wide,
    is_dark,
    low_bytes_mode,
    read_statement,
)
from raypipe.data.opening import (
    DECODER_ERRORS,
    ImageError,
    load_pixels,
    open_image,
    open_mask,
    quiet_pillow,
    reason_of,
)

_EXIF_ORIENTATION = 0x0112
_TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SWAPPING = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width."""
_TURNED_BY_PILLOW = ("TIFF",)
"""Formats whose reader states the size as it is shown, and turns the pixels while it loads them."""


@dataclass(frozen=True)
class DecodedImage:
    """An image at its working size, with its original size."""

    pixels: NDArray[np.uint8]
    """(height, width, 3), RGB, after EXIF rotation and reduction to `max_side`."""
    original_height: int
    original_width: int


class Shape(NamedTuple):
    """An image's size as it is shown, and EXIF's orientation, by which the picture in the file was turned for that."""

    height: int
    width: int
    orientation: int
    """1..8."""


def decode_image(data: bytes, *, max_side: int | None = 1024, guess_depth: bool = True) -> DecodedImage:
    """Decodes an image in one of the usual formats to RGB.

    EXIF rotation is applied, values of more than 8 bits are scaled (`raypipe.data.depth`), transparency is laid on
    white, and the first frame of an animation is taken. The longer side is reduced to `max_side` with an antialiased
    filter; smaller images keep their size.

    Args:
        data: the file's content.
        max_side: largest length of the longer side in pixels; None keeps every size.
        guess_depth: 16-bit values may be of fewer bits, as far as their largest one says; false takes 65535 for white.

    Raises:
        ImageError: the bytes are no complete image of a supported format, it has more than `MAX_PIXELS`, or its values
            have no known range.
    """
    with quiet_pillow():
        image, bare = open_image(data)
        statement = read_statement(image, significant_bits=bare.significant_bits)
        low_bytes = low_bytes_mode(image)
        width, height = image.size
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which saves most of a large photograph's memory.
        drafted = image.draft(None, reduced_size(width, height, max_side))
        load_pixels(image)
        if drafted is None:
            width, height = image.size  # some readers (TIFF) already rotate while loading
        pixels = _to_rgb(image, bare.data, statement, low_bytes, guess_depth=guess_depth)
        orientation = bare.orientation or _orientation(image)
    if orientation in _TRANSPOSES:
        pixels = pixels.transpose(_TRANSPOSES[orientation])
    if orientation in _SWAPPING:
        width, height = height, width
    size = reduced_size(width, height, max_side)
    if pixels.size != size:
        pixels = pixels.resize(size, Image.Resampling.BILINEAR, reducing_gap=3.0)
    return DecodedImage(pixels=np.array(pixels), original_height=height, original_width=width)


def read_shape(data: bytes) -> Shape:
    """Reads an image's header; decodes no pixel.

    Raises:
        ImageError: as `check_header`.
    """
    with quiet_pillow():
        image, bare = open_image(data)
        orientation = bare.orientation or _orientation(image)
    width, height = image.size
    if orientation in _SWAPPING and image.format not in _TURNED_BY_PILLOW:
        width, height = height, width
    return Shape(height, width, orientation)


def turn(values: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Turns a map (H, W) as EXIF's orientation says that its photograph is to be turned."""
    if orientation not in _TRANSPOSES:
        return values
    return np.array(Image.fromarray(values).transpose(_TRANSPOSES[orientation]))


def decode_mask(data: bytes, *, size: tuple[int, int] | None = None) -> NDArray[np.uint8]:
    """Decodes a palette or 8-bit grey mask to its class ids (H, W).

    Args:
        data: the file's content.
        size: (height, width) of the image that a run's own mask is of; a PNG of just this size may have more than
            `MAX_PIXELS`.

    Raises:
        ImageError: the file is damaged, or its values aren't class ids: colour, 16 bit, or grey of fewer than 8 bits
            (which image programs stretch to 0..255).
    """
    with quiet_pillow():
        image = open_mask(data, size=size)
        raw_mode = str(image.tile[0][3]) if image.tile else ""
        if image.mode not in ("P", "L") or (image.mode == "L" and any(f"L;{bits}" in raw_mode for bits in (2, 4))):
            kind = "grey of fewer than 8 bits" if image.mode in ("1", "L") else f"mode {image.mode}"
            raise ImageError(f"the mask is {kind}: its values aren't class ids. Save it as 8-bit grey or palette PNG")
        load_pixels(image)
        return np.array(image, dtype=np.uint8)


def resize_map(
    values: NDArray[np.uint8], size: tuple[int, int], resampling: Image.Resampling = Image.Resampling.NEAREST
) -> NDArray[np.uint8]:
    """Resizes a map or an image to (H, W); by default each pixel takes the label of the nearest one."""
    if values.shape[:2] == size:
        return values
    return np.array(Image.fromarray(values).resize((size[1], size[0]), resampling))


def encode_png(array: NDArray[np.uint8], *, palette: NDArray[np.uint8] | None = None) -> bytes:
    """Encodes (H, W) values as an 8-bit PNG, without loss.

    Args:
        array: the values.
        palette: (256, 3) RGB, the colours that viewers show them in; grey by default.

    Raises:
        ValueError: the array isn't uint8 of shape (H, W) with at least one pixel.
    """
    if array.dtype != np.uint8 or array.ndim != 2 or array.size == 0:
        raise ValueError(f"expected a uint8 array of shape (height, width), got {array.dtype} {array.shape}")
    image = Image.fromarray(np.ascontiguousarray(array))
    if palette is not None:
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_rgb_png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes an image (H, W, 3) as PNG, without loss."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, format="PNG")
    return buffer.getvalue()


def reduced_size(width: int, height: int, max_side: int | None) -> tuple[int, int]:
    """Returns the working size (width, height) of an image, whose longer side has at most `max_side` pixels."""
    longer = max(width, height)
    if max_side is None or longer <= max_side:
        return width, height
    scale = max_side / longer
    return max(1, math.floor(width * scale + 0.5)), max(1, math.floor(height * scale + 0.5))


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1  # a damaged EXIF block doesn't tell the orientation, but the pixels are complete
    return value if isinstance(value, int) and value in _TRANSPOSES else 1


def _to_rgb(
    image: ImageFile.ImageFile, data: bytes, statement: Statement, low_bytes: str | None, *, guess_depth: bool
) -> Image.Image:
    """Returns a loaded image as RGB; `data` is its file, which is read again where 16-bit colours are dark."""
    shown: Image.Image = image
    try:
        if image.mode.startswith(("I", "F")):
            return grey_from_wide(image, statement, guess=guess_depth).convert("RGB")
        keyed = isinstance(image.info.get("transparency"), tuple)
        if low_bytes and (keyed or (guess_depth and is_dark(image)) or statement != Statement()):
            again, _ = open_image(data)
            shown = colours_from_deep(image, again, low_bytes, statement, guess=guess_depth)
        if shown.has_transparency_data:
            shown = shown.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown).convert("RGB")
        return shown.convert("RGB")
    except UnknownRange as error:
        raise ImageError(f"mode {image.mode}: {error}") from error
    except DECODER_ERRORS as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"mode {image.mode} can't be shown as RGB: {reason_of(error)}") from error
