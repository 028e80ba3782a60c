"""labelmap.txt: class names and the colours of their ids, as VOC's exports of CVAT and of raypipe have it.

    # label:color_rgb:parts:actions
    background:0,0,0::
    dog:128,0,0::

The background has no id but 0, wherever it stands. A name's colons, `#` and backslashes are written after a backslash.
"""

import re
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
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise ValueError(f"line {number}: expected name:red,green,blue:parts:actions, got {line[:80]!r}")
        name = unescape(entry["name"]).strip()
        class_id = _SPECIAL.get(name.casefold())
        if class_id is None:
            classes.append(name)
            class_id = len(classes)
        if entry["color"]:
            red, green, blue = (int(part) for part in entry["color"].split(","))
            colors[red, green, blue] = class_id
    if not classes:
        raise ValueError("it names no class")
    return LabelMap(tuple(classes), colors)


def escape(name: str) -> str:
    r"""The name as a labelmap has it."""
    return re.sub(r"[:\\#]", r"\\\g<0>", name)


def unescape(name: str) -> str:
    r"""The opposite of `escape`."""
    return re.sub(r"\\(.)", r"\1", name)
