"""Encodes and decodes Label Studio's run lengths of brush strokes.

The format is that of @thi.ng/rle-pack (https://github.com/thi-ng/umbrella/tree/develop/packages/rle-pack), with the
highest bit first. The header has 32 bits for the number of words, 5 bits for the word size minus 1, and four times 4
bits for the sizes minus 1 of the four kinds of count. Then come runs until all words are there: 1 bit for "repeated",
2 bits for the kind of count, the count minus 1, and either the one repeated word or as many words as the count says.
The words are the bytes of an RGBA picture, whose alpha channel is the region.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

CHANNELS = 4
COUNT_SIZES = (3, 4, 8, 16)
"""Sizes in bits of the four kinds of count, as Label Studio chooses them."""

_WORD_SIZE = 8
_THRESHOLD = 128
"""Smallest alpha of a pixel in the region: a brush may have smooth edges."""


def encode_brush(pixels: NDArray[np.bool_]) -> list[int]:
    """Returns the run lengths of a region (H, W) as a list of bytes."""
    flat = pixels.reshape(-1)
    if flat.size * CHANNELS >= 2**32:
        raise ValueError(
            f"a region of {pixels.shape} pixels doesn't fit into Label Studio's run lengths: reduce the image first"
        )
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = np.concatenate([[0], edges])
    lengths = np.diff(np.concatenate([starts, [flat.size]])) * CHANNELS
    bits = [f"{flat.size * CHANNELS:032b}{_WORD_SIZE - 1:05b}", *(f"{size - 1:04b}" for size in COUNT_SIZES)]
    largest = 1 << COUNT_SIZES[-1]
    for length, value in zip(lengths.tolist(), flat[starts].tolist(), strict=True):
        whole, rest = divmod(length, largest)
        bits += [_run(largest, value)] * whole
        if rest:
            bits.append(_run(rest, value))
    text = "".join(bits)
    text += "0" * (-len(text) % 8)
    return list(int(text, 2).to_bytes(len(text) // 8, "big"))


def _run(length: int, value: bool) -> str:
    kind = next(kind for kind, size in enumerate(COUNT_SIZES) if length <= 1 << size)
    return f"1{kind:02b}{length - 1:0{COUNT_SIZES[kind]}b}{255 if value else 0:08b}"


def decode_brush(data: Sequence[Any], *, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the region (height, width) of run lengths.

    Raises:
        ValueError: the run lengths are damaged, or of a picture of another size.
    """
    try:
        packed = bytes(data)
    except (TypeError, ValueError) as error:
        raise ValueError("expected run lengths as a list of bytes") from error
    num_words = height * width * CHANNELS
    bits = _Bits(packed)
    told, word_size = bits.read(32), bits.read(5) + 1
    if told != num_words or word_size != _WORD_SIZE:
        raise ValueError(
            f"expected run lengths of {num_words} words of 8 bits, RGBA of {width} x {height} pixels, got {told} of "
            f"{word_size} bits"
        )
    sizes = [bits.read(4) + 1 for _ in range(4)]
    words = np.empty(num_words, np.uint8)
    done = 0
    while done < num_words:
        repeated = bits.read(1)
        end = done + bits.read(sizes[bits.read(2)]) + 1
        if end > num_words:
            raise ValueError(f"expected run lengths of {num_words} words, got {end}")
        words[done:end] = bits.read(8) if repeated else [bits.read(8) for _ in range(end - done)]
        done = end
    return words.reshape(height, width, CHANNELS)[..., -1] >= _THRESHOLD


class _Bits:
    """Reads numbers of any size in bits from bytes, highest bit first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.position = 0

    def read(self, size: int) -> int:
        end = self.position + size
        if end > 8 * len(self.data):
            raise ValueError("the run lengths end too early")
        first, last = self.position // 8, -(-end // 8)
        number = int.from_bytes(self.data[first:last], "big") >> (8 * last - end)
        self.position = end
        return number & ((1 << size) - 1)
