"""What the importers share: finding images below a folder, and the order of class names."""

import posixpath
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypipe import storage
from raypipe.data.manifest import absolute_uri

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2")


def list_images(folder: str) -> dict[str, str]:
    """URIs of all images below a folder, by their path in it ("sub/a.jpg"), sorted. Hidden files are left out.

    Raises:
        FileNotFoundError: if there is no such folder.
        ValueError: if it has no images.
    """
    if not storage.exists(folder):
        raise FileNotFoundError(f"no such folder: {folder}")
    prefix = absolute_uri(folder).rstrip("/") + "/"
    paths = (uri.removeprefix(prefix) for uri in storage.list_files(folder))
    images = {path: prefix + path for path in paths if _is_image(path)}
    if not images:
        raise ValueError(f"no images below {folder}; known endings are {', '.join(IMAGE_SUFFIXES)}")
    return images


def without_suffix(path: str) -> str:
    """The path without the ending of its last part: "sub/a.b.jpg" gives "sub/a.b"."""
    return posixpath.splitext(path)[0]


def find_classes(rows: Iterable[Mapping[str, Any]], classes: Sequence[str] | None) -> tuple[str, ...]:
    """The given class names, or else all labels of the rows, sorted.

    Raises:
        ValueError: if no row has a label.
    """
    if classes is not None:
        return tuple(classes)
    found = sorted({label for row in rows for label in row["labels"] or ()})
    if not found:
        raise ValueError("no image has a label: look at the labels' source, or name the classes")
    return tuple(found)


def _is_image(path: str) -> bool:
    name = posixpath.basename(path)
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
