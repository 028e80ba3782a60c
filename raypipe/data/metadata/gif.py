"""GIF's blocks: those that make the first picture, and the others. https://www.w3.org/Graphics/GIF/spec-gif89a.txt."""

from raypipe.data.metadata.bare import Bare, join

_EXTENSION, _PICTURE = 0x21, 0x2C
_CONTROL = 0xF9
"""Of extensions the one that says what is transparent; the others are comments, text and applications' own."""


def bare_gif(data: bytes) -> Bare:
    """Keeps the screen, the first picture, and what says its transparent colour."""
    place = 13 + _palette_size(data, 10)
    kept = [(0, min(place, len(data)))]
    while place + 2 <= len(data) and data[place] == _EXTENSION:
        end = _end_of_blocks(data, place + 2)
        if data[place + 1] == _CONTROL and data[place + 2 : place + 3] == b"\4":
            kept.append((place, end))
        place = end
    end = len(data)
    if data[place : place + 1] == bytes([_PICTURE]):
        end = _end_of_blocks(data, place + 11 + _palette_size(data, place + 9))
    kept.append((min(place, len(data)), end))
    return Bare(join(data, kept))


def _palette_size(data: bytes, place: int) -> int:
    """Bytes of the palette that the flags at a place announce."""
    flags = data[place] if place < len(data) else 0
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _end_of_blocks(data: bytes, place: int) -> int:
    """Where a chain of blocks ends: each begins with its length, and the last one has none."""
    while place < len(data) and data[place]:
        place += 1 + data[place]
    return min(place + 1, len(data))
