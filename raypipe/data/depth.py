"""Pixels of more than 8 bits: which of their values is black, and which white.

Many files of 16 bits hold 10, 12 or 14 of them, as the sensor gave them, and would be almost black if 65535 were white.
A file says so seldom, in a tag or chunk; else the values of the image say it: white is the largest number of the
fewest of 8, 10, 12, 14 and 16 bits that hold all of them. Any other range can't be guessed, and is refused.
"""

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of a sample that cameras, scanners and converters give."""

_SMALLEST_OF_16_BITS = 64
"""In the high byte of a value: from here on it needs more than 14 bits."""

_MIN_IS_WHITE, _PHOTOMETRIC, _SAMPLE_FORMAT, _BITS, _SMALLEST, _LARGEST = 0, 262, 339, 258, 340, 341
"""TIFF's tags, and a value of the second one."""
_UNSIGNED = 1

_NATIVE = "L" if sys.byteorder == "little" else "B"
_OTHER_ORDER = {"B": "L", "L": "B"}
_PIXELS_AT_A_TIME = 2**20


class UnknownRange(ValueError):  # noqa: N818 - an error of one row, named as in the quarantine table
    """No rule says which values of an image are black and white; the message says what range they have."""


@dataclass(frozen=True)
class Statement:
    """What a file says of its values."""

    lowest: float | None = None
    highest: float | None = None
    """The values of black and white."""
    bits: int | None = None
    """In use, of 16."""
    scaled: bool = False
    """The decoder has scaled the values to 0..65535."""


def read_statement(image: ImageFile.ImageFile, *, significant_bits: int | None) -> Statement:
    """Returns what a file says; its pixels needn't be loaded.

    Args:
        image: the file.
        significant_bits: what a PNG says of them.
    """
    if image.format == "TIFF":
        bits = _single(image, _BITS)
        lowest, highest = _single(image, _SMALLEST), _single(image, _LARGEST)
        if highest is not None:
            return Statement(lowest=0 if lowest is None else lowest, highest=highest)
        return Statement(bits=int(bits) if bits in (10, 12, 14) else None)
    if image.format == "JPEG2000":
        return Statement(scaled=True)
    if image.format == "PPM":
        return Statement(scaled=bool(image.tile) and image.tile[0].codec_name != "raw")
    return Statement(bits=significant_bits if significant_bits and significant_bits <= 16 else None)


def find_range(values: NDArray[Any], statement: Statement, *, guess: bool) -> tuple[float, float]:
    """Returns the values of black and white.

    What a file states counts where all values are in it.

    Args:
        values: of any shape, with at least one pixel.
        statement: what the file says.
        guess: whole numbers may be of fewer than 16 bits, whatever the file says; false takes 65535 for white.

    Raises:
        UnknownRange: the values have none that is known.
    """
    low, high = values.min(), values.max()
    lowest, highest = statement.lowest, statement.highest
    if lowest is not None and highest is not None and lowest < highest and lowest <= low and high <= highest:
        return lowest, highest
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        return 0, 1
    if not (low >= 0 and high <= 65535) or (values.dtype.kind == "f" and (values != np.floor(values)).any()):
        raise UnknownRange(
            f"pixels from {low} to {high} have no known range: save 8 or 16 bit, or state the values of black and "
            "white in TIFF's tags SMinSampleValue and SMaxSampleValue"
        )
    if statement.bits is not None:
        return 0, 2**statement.bits - 1 if high < 2**statement.bits else 65535
    if statement.scaled or not guess:
        return 0, 65535
    return 0, 2 ** next(bits for bits in DEPTHS if high < 2**bits) - 1


def to_bytes(values: NDArray[Any], lowest: float, highest: float) -> NDArray[np.uint8]:
    """Returns values as 0..255, rounded, with few of them in memory as floats at a time."""
    scaled = np.empty(values.shape, np.uint8)
    rows = max(1, _PIXELS_AT_A_TIME // max(1, values[0].size))
    for start in range(0, len(values), rows):
        part = (values[start : start + rows].astype(np.float64) - lowest) * (255 / (highest - lowest))
        scaled[start : start + rows] = np.rint(part).clip(0, 255)
    return scaled


def grey_from_wide(image: ImageFile.ImageFile, statement: Statement, *, guess: bool) -> Image.Image:
    """Returns a loaded image of mode I, I;16 or F as 8-bit grey, with a PNG's transparent value as white.

    Raises:
        UnknownRange: as `find_range`.
    """
    values = np.asarray(image)
    if image.format == "TIFF" and values.dtype == np.int32 and _single(image, _SAMPLE_FORMAT) in (None, _UNSIGNED):
        values = values.view(np.uint32)
    grey = to_bytes(values, *find_range(values, statement, guess=guess))
    if image.format == "TIFF" and _single(image, _PHOTOMETRIC) == _MIN_IS_WHITE:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)


def is_dark(image: Image.Image) -> bool:
    """Whether the colours of an image, whose bytes are the high ones of 16 bits, may be of fewer bits."""
    extrema = image.getextrema()
    return all(isinstance(band, tuple) and band[1] < _SMALLEST_OF_16_BITS for band in extrema[:3])


def low_bytes_mode(image: ImageFile.ImageFile) -> str | None:
    """Returns how the low bytes of 16-bit colours are to be read; None for other images.

    Pillow takes the high byte of each sample. Told that the file has the other order of bytes, it takes the low one.
    """
    modes = {args[0] if isinstance(args := tile.args, tuple) else args for tile in image.tile}
    if len(modes) != 1 or image.mode not in ("RGB", "RGBA"):
        return None
    mode = str(modes.pop())
    if mode == "LA;16B":
        return "RGBA"
    name, _, order = mode.replace(";16N", f";16{_NATIVE}").partition(";16")
    return f"{name};16{_OTHER_ORDER[order]}" if order and name in ("RGB", "RGBA", "RGBX") else None


def colours_from_deep(
    high: Image.Image, other: ImageFile.ImageFile, mode: str, statement: Statement, *, guess: bool
) -> Image.Image:
    """Returns 16-bit colours as 8 bit by the range of all of them; alpha by the same, unless it needs more.

    A PNG's transparent colour is white.

    Args:
        high: the image as Pillow decodes it.
        other: the same file, not loaded yet; its bytes are read again.
        mode: of `low_bytes_mode`.
        statement: as of `find_range`.
        guess: as of `find_range`.

    Raises:
        OSError: (or another of the decoder's errors) the file is damaged.
    """
    other.tile = [
        tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode) for tile in other.tile
    ]
    other.load()
    low = np.asarray(other)
    if mode == "RGBA":  # the bytes of grey and alpha, high and low
        values = low[..., [0, 0, 0, 2]].astype(np.uint16)
        low = low[..., [1, 1, 1, 3]]
    else:
        values = np.asarray(high).astype(np.uint16)
    values <<= 8
    values |= low
    del low
    white = find_range(values[..., :3], statement, guess=guess)
    colours = to_bytes(values[..., :3], *white)
    if isinstance(transparent := high.info.get("transparency"), tuple):
        colours[(values[..., :3] == transparent).all(axis=2)] = 255
    if values.shape[2] == 4:
        alpha = to_bytes(values[..., 3:], 0, white[1] if values[..., 3].max() <= white[1] else 65535)
        return Image.fromarray(np.concatenate([colours, alpha], axis=2))
    return Image.fromarray(colours)


def _single(image: ImageFile.ImageFile, tag: int) -> float | None:
    """A tag of a TIFF that has one number for all samples; None where it has none, or several."""
    value = getattr(image, "tag_v2", {}).get(tag)
    numbers = {float(number) for number in value} if isinstance(value, tuple) else {value}
    number = numbers.pop() if len(numbers) == 1 else None
    return float(number) if isinstance(number, int | float) else None
