"""Decodes images and masks from files' bytes, and encodes masks.

Conventions: pixels are RGB, 8 bit, rows first, after EXIF rotation. Transparent pixels are laid on white. Masks hold
class ids, never colours.
"""

import importlib.util
import io
import math
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from raypipe.data.depth import (
    Statement,
    UnknownRange,
    colours_from_deep,
    grey_from_wide,
    is_dark,
    low_bytes_mode,
    read_statement,
)
from raypipe.data.metadata import Bare, without_metadata

FORMATS: tuple[str, ...] = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "AVIF", "JPEG2000")
"""Pillow's readers that may be used. Others are not meant for untrusted files: EPS starts a PostScript interpreter."""

if importlib.util.find_spec("pillow_heif") is not None:  # HEIC, of whoever has installed its reader
    import pillow_heif

    pillow_heif.register_heif_opener(thumbnails=False)
    FORMATS += ("HEIF",)

MAX_PIXELS = 89_478_485
"""Most pixels of an image: 256 MiB as RGB. A larger one is refused by its header, before anything is decoded."""

MAX_SCENE_PIXELS = 1_000_000_000
"""Most pixels of an image that is read by windows, and of its mask, which is in memory as a whole."""

DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)
"""Errors that Pillow's readers have been observed to raise on damaged bytes."""

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


class ImageError(ValueError):
    """Bytes can't be used as an image or a mask; the message says why."""


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
    with _quiet_pillow():
        image, bare = _open(data)
        statement = read_statement(image, significant_bits=bare.significant_bits)
        low_bytes = low_bytes_mode(image)
        width, height = image.size
        # A JPEG can be decoded at 1/2, 1/4 or 1/8 of its size, which saves most of a large photograph's memory.
        drafted = image.draft(None, reduced_size(width, height, max_side))
        _load(image)
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


def check_header(data: bytes) -> None:
    """Makes sure that bytes begin as an image of a supported format and an allowed size; decodes no pixel.

    Raises:
        ImageError: if they don't.
    """
    with _quiet_pillow():
        _open(data)


def read_shape(data: bytes) -> Shape:
    """Reads an image's header; decodes no pixel.

    Raises:
        ImageError: as `check_header`.
    """
    with _quiet_pillow():
        image, bare = _open(data)
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
    with _quiet_pillow():
        image = _open(data)[0] if size is None or size[0] * size[1] <= MAX_PIXELS else _open_large_png(data, size)
        raw_mode = str(image.tile[0][3]) if image.tile else ""
        if image.mode not in ("P", "L") or (image.mode == "L" and any(f"L;{bits}" in raw_mode for bits in (2, 4))):
            kind = "grey of fewer than 8 bits" if image.mode in ("1", "L") else f"mode {image.mode}"
            raise ImageError(f"the mask is {kind}: its values aren't class ids. Save it as 8-bit grey or palette PNG")
        _load(image)
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


def check_size(height: int, width: int) -> None:
    """Checks a size that a file claims, before memory is taken for it.

    Raises:
        ImageError: the size has no pixels, or more than `MAX_PIXELS`.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; allowed are 1 to {MAX_PIXELS:,}")


@contextmanager
def _quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings of harmless damage (a broken EXIF block), which don't name the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _open(data: bytes) -> tuple[ImageFile.ImageFile, Bare]:
    """Reads the header only; returns the file without metadata, too."""
    if not data:
        raise ImageError("the file is empty")
    bare = without_metadata(data)
    try:
        image = Image.open(io.BytesIO(bare.data), formats=FORMATS)
    except UnidentifiedImageError as error:
        raise ImageError(_unidentified(bare.data)) from error
    except Image.DecompressionBombError as error:
        raise ImageError(f"more than {MAX_PIXELS:,} pixels: reduce the image first") from error
    except DECODER_ERRORS as error:
        raise ImageError(f"the header can't be read: {_reason(error)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels: reduce the image first")
    if width < 1 or height < 1:
        raise ImageError(f"{width} x {height} has no pixels")
    return image, bare


def _unidentified(data: bytes) -> str:
    """Returns why no reader takes a file: that of its format says it, where the first bytes name one."""
    for name in FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        try:
            if factory and accepts and accepts(data[:16]) is True:
                factory(io.BytesIO(data), "")
        except DECODER_ERRORS as error:
            return f"the header of the {name} can't be read: {_reason(error)}"
    return f"not an image in a supported format ({', '.join(FORMATS)}), or its header is damaged"


def _open_large_png(data: bytes, size: tuple[int, int]) -> ImageFile.ImageFile:
    """Reads the header of a PNG of a known size, which `Image.open` may refuse for it."""
    try:
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    except DECODER_ERRORS as error:
        raise ImageError(f"not a PNG, or its header is damaged: {_reason(error)}") from error
    if image.size != size[::-1] or size[0] * size[1] > MAX_SCENE_PIXELS:
        raise ImageError(f"a mask of {image.size[0]} x {image.size[1]} pixels isn't the image's, {size[1]} x {size[0]}")
    return image


def _load(image: ImageFile.ImageFile) -> None:
    try:
        image.load()
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated {image.format}: {_reason(error)}") from error


def _reason(error: BaseException) -> str:
    """Returns one line without the file's bytes, which some readers quote."""
    # The texts of these are the readers' own; those of others, such as KeyError, are what was looked for.
    if isinstance(error, OSError | SyntaxError | ValueError | RuntimeError | EOFError | struct.error | zlib.error):
        text = re.sub(r"""b(['"]).*?\1""", "…", str(error), flags=re.DOTALL)
        if text.strip(" …") and text.isprintable() and not isinstance(error, UnicodeError):
            return text[:100]
    return type(error).__name__


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
            again, _ = _open(data)
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
        raise ImageError(f"mode {image.mode} can't be shown as RGB: {_reason(error)}") from error
