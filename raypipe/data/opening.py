"""Opens images' files with Pillow: which formats and sizes are taken, and what is wrong with a file that isn't."""

import importlib.util
import io
import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile, PngImagePlugin, UnidentifiedImageError

from raypipe.data.content import HEAD, image_kind, what_helps
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


class ImageError(ValueError):
    """Bytes can't be used as an image or a mask; the message says why."""


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Silences Pillow's warnings of harmless damage (a broken EXIF block), which don't name the image."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_header(data: bytes) -> None:
    """Makes sure that bytes begin as an image of a supported format and an allowed size; decodes no pixel.

    Raises:
        ImageError: if they don't.
    """
    with quiet_pillow():
        open_image(data)


def check_size(height: int, width: int) -> None:
    """Checks a size that a file claims, before memory is taken for it.

    Raises:
        ImageError: the size has no pixels, or more than `MAX_PIXELS`.
    """
    if height < 1 or width < 1 or height * width > MAX_PIXELS:
        raise ImageError(f"{width} x {height} pixels; allowed are 1 to {MAX_PIXELS:,}")


def open_image(data: bytes) -> tuple[ImageFile.ImageFile, Bare]:
    """Reads the header only; returns the file without metadata, too.

    Raises:
        ImageError: it isn't one of an image of a supported format and an allowed size.
    """
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
        raise ImageError(f"the header can't be read: {reason_of(error)}") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise ImageError(f"{width} x {height} is more than {MAX_PIXELS:,} pixels: reduce the image first")
    if width < 1 or height < 1:
        raise ImageError(f"{width} x {height} has no pixels")
    return image, bare


def _unidentified(data: bytes) -> str:
    """Returns why no reader takes a file: that of its format says it, where the first bytes name one."""
    kind = image_kind(data[:HEAD])
    if kind is not None and (needed := what_helps(kind)) is not None:
        return f"{kind} images {needed}"
    for name in FORMATS:
        factory, accepts = Image.OPEN.get(name, (None, None))
        try:
            if factory and accepts and accepts(data[:16]) is True:
                factory(io.BytesIO(data), "")
        except DECODER_ERRORS as error:
            return f"the header of the {name} can't be read: {reason_of(error)}"
    return f"not an image in a supported format ({', '.join(FORMATS)}), or its header is damaged"


def open_mask(data: bytes, *, size: tuple[int, int] | None) -> ImageFile.ImageFile:
    """Reads the header of a mask only.

    Args:
        data: the file's content.
        size: (height, width) of the image that a run's own mask is of; None where it isn't known.

    Raises:
        ImageError: as `open_image`; or a mask of more than `MAX_PIXELS` is no PNG of just this size.
    """
    if size is None or size[0] * size[1] <= MAX_PIXELS:
        return open_image(data)[0]
    try:  # not by `Image.open`, which refuses it
        image = PngImagePlugin.PngImageFile(io.BytesIO(data))
    except DECODER_ERRORS as error:
        raise ImageError(f"not a PNG, or its header is damaged: {reason_of(error)}") from error
    if image.size != size[::-1] or size[0] * size[1] > MAX_SCENE_PIXELS:
        raise ImageError(f"a mask of {image.size[0]} x {image.size[1]} pixels isn't the image's, {size[1]} x {size[0]}")
    return image


def load_pixels(image: ImageFile.ImageFile) -> None:
    """Decodes an image's pixels.

    Raises:
        ImageError: its bytes are damaged, or not all there.
    """
    try:
        image.load()
    except DECODER_ERRORS as error:
        raise ImageError(f"damaged or truncated {image.format}: {reason_of(error)}") from error


def reason_of(error: BaseException) -> str:
    """Returns one line without the file's bytes, which some readers quote."""
    # The texts of these are the readers' own; those of others, such as KeyError, are what was looked for.
    if isinstance(error, OSError | SyntaxError | ValueError | RuntimeError | EOFError | struct.error | zlib.error):
        text = re.sub(r"""b(['"]).*?\1""", "…", str(error), flags=re.DOTALL)
        if text.strip(" …") and text.isprintable() and not isinstance(error, UnicodeError):
            return text[:100]
    return type(error).__name__
