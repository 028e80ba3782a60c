"""labelmap.txt: class names and the colours of their ids, as VOC's exports of CVAT and of raypipe have it.

    # label:color_rgb:parts:actions
    background:0,0,0::
    dog:128,0,0::

The background has no id but 0, wherever it stands. CVAT has no way to write a name with a colon, or one that begins as
a comment. Here such characters, ends of lines and spaces at the ends stand after a backslash.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from raypipe import storage
from raypipe.schema import BACKGROUND, IGNORE

_SPECIAL = {"background": BACKGROUND, "ignore": IGNORE, "void": IGNORE}
_ENTRY = re.compile(
    r"(?P<name>(?:\\.|[^:\\])+)(?::(?P<color>\s*\d+\s*,\s*\d+\s*,\s*\d+\s*)?(?::(?P<parts>[^:]*))?(?::(?P<actions>[^:]*))?)?"
)


@dataclass(frozen=True)
class LabelMap:
    """What a labelmap says."""

    classes: tuple[str, ...]
    """Without background, in the order of their ids."""
    colors: dict[tuple[int, int, int], int]
    """Id of each colour; empty where the file names none."""


def read_labelmap(uri: str) -> LabelMap:
    """Reads a labelmap.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read.
    """
    try:
        return parse_labelmap(storage.read_bytes(uri).decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} isn't UTF-8: {error}") from error
    except ValueError as error:
        raise ValueError(f"{uri}: {error}") from error


def parse_labelmap(text: str) -> LabelMap:
    """Reads a labelmap's text.

    Raises:
        ValueError: a line isn't `name:red,green,blue:parts:actions`.
    """
    classes: list[str] = []
    colors: dict[tuple[int, int, int], int] = {}
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise ValueError(f"line {number}: expected name:red,green,blue:parts:actions, got {line[:80]!r}")
        name = unescape(entry["name"])
        class_id = _SPECIAL.get(name.strip().casefold())
        if class_id is None:
            classes.append(name)
            class_id = len(classes)
        if entry["color"]:
            red, green, blue = (int(part) for part in entry["color"].split(","))
            colors[red, green, blue] = class_id
    if not classes:
        raise ValueError("it names no class")
    return LabelMap(tuple(classes), colors)


def write_labelmap(classes: Sequence[str], colors: Sequence[Sequence[int]]) -> str:
    """Returns the text of a labelmap.

    Args:
        classes: without background, in the order of their ids.
        colors: RGB of each id, from that of the background on.
    """
    names = ["background", *map(escape, classes)]
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(names, colors, strict=False)]
    return "\n".join(["# label:color_rgb:parts:actions", *lines, ""])


_NAMED = {"\n": "n", "\r": "r"}
"""Letters that stand for ends of lines after a backslash."""


def escape(name: str) -> str:
    r"""The name as a labelmap has it."""
    marked = ["\\" + _NAMED.get(one, one) if one in ":\\#\n\r" else one for one in name]
    for end in (0, -1):
        if marked[end].isspace():
            marked[end] = "\\" + marked[end]
    return "".join(marked)


def unescape(name: str) -> str:
    r"""The opposite of `escape`; spaces at the ends are left out where no backslash keeps them."""
    ends = {letter: end for end, letter in _NAMED.items()}
    parts = re.findall(r"\\?.", name, re.DOTALL)
    while parts and parts[0].isspace():
        del parts[0]
    while parts and parts[-1].isspace():
        del parts[-1]
    return "".join(ends.get(part[1], part[1]) if len(part) == 2 else part for part in parts)
