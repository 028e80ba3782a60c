"""Finds the images below a folder, and the class names of rows, for the importers."""

import logging
import posixpath
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from raypipe import storage
from raypipe.uri import absolute, is_relative, relative

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2")

log = logging.getLogger(__name__)


def list_images(folder: str) -> dict[str, str]:
    """Returns the URIs of all images below a folder, by their path in it ("sub/a.jpg"), sorted, without hidden files.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: the folder has no images.
    """
    if not storage.exists(folder):
        raise FileNotFoundError(f"no such folder: {folder}")
    found = absolute(folder)
    paths = ((relative(uri, found), uri) for uri in storage.list_files(found))
    images = {path: uri for path, uri in paths if path is not None and _is_image(path)}
    if not images:
        raise ValueError(f"no images below {folder}; known endings are {', '.join(IMAGE_SUFFIXES)}")
    return images


def without_suffix(path: str) -> str:
    """Returns the path without the ending of its last part: "sub/a.b.jpg" gives "sub/a.b"."""
    return posixpath.splitext(path)[0]


def find_images(rows: Sequence[Mapping[str, Any]], folder: str, *, skip_missing: bool) -> list[dict[str, Any]]:
    """Replaces the image names in the rows' `image_uri` by the URIs of the images below a folder.

    A name is a path in the folder, with or without its ending. Accents may be composed or not: "é" is one character on
    most systems and two on macOS. URIs and absolute paths stay as they are.

    Args:
        rows: rows with an `image_uri`.
        folder: URI of the folder.
        skip_missing: leave out rows whose image isn't there, instead of raising.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an image is missing, or a name fits several images.
    """
    images = list_images(folder)
    by_name: dict[str, list[str]] = {}
    for path in images:
        for name in {unicodedata.normalize("NFC", path), unicodedata.normalize("NFC", without_suffix(path))}:
            by_name.setdefault(name, []).append(path)
    found, missing, used = [], [], set()
    for row in rows:
        name = row["image_uri"]
        if not is_relative(name):
            found.append(dict(row))
            continue
        paths = [name] if name in images else by_name.get(unicodedata.normalize("NFC", posixpath.normpath(name)), [])
        if len(paths) > 1:
            raise ValueError(f"{name!r} may be {' or '.join(paths)} below {folder}: write the ending, too")
        if not paths:
            missing.append(name)
            continue
        used.add(paths[0])
        found.append({**row, "image_uri": images[paths[0]]})
    if missing and not skip_missing:
        raise ValueError(
            f"{len(missing)} of {len(rows)} images aren't below {folder}, such as {missing[:3]}; there are "
            f"{list(images)[:3]}, …: complete the folder, or leave them out by `skip_missing`"
        )
    if missing or len(used) < len(images):
        log.warning(
            "%s: %d rows without an image left out, %d images that no row names",
            folder,
            len(missing),
            len(images) - len(used),
        )
    return found


def find_classes(rows: Iterable[Mapping[str, Any]], classes: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the given class names, or else all labels of the rows, sorted.

    Raises:
        ValueError: no row has a label.
    """
    if classes is not None:
        return tuple(classes)
    found = sorted({label for row in rows for label in row["labels"] or ()})
    if not found:
        raise ValueError("no image has a label: check where the labels come from, or name the classes")
    return tuple(found)


def _is_image(path: str) -> bool:
    name = posixpath.basename(path)
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")
