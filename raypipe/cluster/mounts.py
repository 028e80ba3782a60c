"""Files on the mounts of a node, such as NFS: whether they can be read there."""

from collections.abc import Iterable
from pathlib import Path


def readable(paths: Iterable[str]) -> list[str]:
    """Those of some local files that can be read on this node."""
    return [path for path in paths if _is_readable(path)]


def _is_readable(path: str) -> bool:
    try:
        with Path(path).open("rb") as file:
            file.read(1)
    except (OSError, ValueError):  # a name that no file can have
        return False
    return True
