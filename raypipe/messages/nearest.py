"""The name that is there in the place of one that isn't, for messages on files."""

import difflib
import os

_MOST_NAMES = 5_000
"""In a folder in which a name is looked for."""


def nearest_name(path: str) -> str:
    """The name in the same folder of this machine that is most like that of a path, as a part of a message."""
    folder, name = os.path.split(path.rstrip("/"))
    try:
        there = sorted(os.listdir(folder or "."))[:_MOST_NAMES]  # noqa: PTH208 - names, not paths
    except OSError:
        return ""
    near = difflib.get_close_matches(name, there, n=1)
    return f"; the nearest name there is {near[0]!r}" if near else ""
