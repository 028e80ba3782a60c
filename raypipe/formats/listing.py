"""Finds the images below a folder: all of them, whatever their names are, and says what is left out.

Hidden files and folders are out, wherever in a path they are. Links to folders are followed; a link that leads back to
a folder above it isn't. What has the ending of an image is one; of everything else the first bytes decide.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from raypipe import storage, uri
from raypipe.data.content import HEAD, image_kind, what_helps
from raypipe.words import counted

IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2"),
    *(".ppm", ".pgm", ".pbm"),
)
"""Endings of images that Pillow reads."""

HIDDEN = re.compile(
    r"\..+|@eaDir|__MACOSX|#recycle|\$RECYCLE\.BIN|System Volume Information|Thumbs\.db|desktop\.ini|ehthumbs\.db",
    re.IGNORECASE,
)
"""Names that operating systems, servers and notebooks put beside people's files."""

MOST_LOOKS = 10_000
"""Files of unknown endings that are looked into."""

NO_UTF_8 = "files whose names aren't UTF-8"
HIDDEN_FOLDERS = "hidden folders"
EMPTY = "empty folders"
UNLISTABLE = "folders that may not be listed"
LOOPS = "links that lead back to a folder above them"
NO_FILES = (NO_UTF_8, HIDDEN_FOLDERS, EMPTY, UNLISTABLE, LOOPS)
"""Reasons for leaving out what no file's path is."""

_AT_A_TIME = 1_000
"""Files that are looked into at a time."""


@dataclass(frozen=True)
class Listing:
    """What is below a folder."""

    images: dict[str, str]
    """URIs by path in the folder, sorted."""
    skipped: dict[str, list[str]] = field(default_factory=dict)
    """Paths of the files that were left out, by reason."""


def list_images(folder: str) -> Listing:
    """Returns the images below a folder.

    Args:
        folder: an absolute URI.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        ValueError: the folder has no images.
    """
    images: list[str] = []
    unknown: list[str] = []
    skipped: dict[str, list[str]] = defaultdict(list)
    for path in _paths(folder, skipped):
        if "" in path.split("/"):
            if not path.endswith("/"):  # stores mark folders by an empty object whose key ends so
                skipped["keys with an empty name between slashes"].append(path)
        elif is_hidden(path):
            skipped["hidden files"].append(path)
        elif not _is_text(path):
            skipped[NO_UTF_8].append(ascii(path))
        elif path.lower().endswith(IMAGE_SUFFIXES):
            images.append(path)
        else:
            unknown.append(path)
    looked, others = unknown[:MOST_LOOKS], unknown[MOST_LOOKS:]
    heads = storage.read_many([uri.join(folder, path) for path in looked], end=HEAD)
    for path in looked:
        head = heads[uri.join(folder, path)]
        if isinstance(head, PermissionError):
            skipped["files that may not be read"].append(path)
        elif isinstance(head, FileNotFoundError):
            continue  # it went while this looked
        elif isinstance(head, Exception):
            raise head
        elif (kind := image_kind(head)) is None:
            skipped["files that are no images" if head else "empty files"].append(path)
        elif (needed := what_helps(kind)) is not None:
            skipped[f"{kind} images, which {needed}"].append(path)
        else:
            images.append(path)
    if others:
        skipped[f"files of unknown endings beyond the first {MOST_LOOKS:,}"] = others
    if not (images or unknown or skipped) and not storage.exists(folder):
        raise FileNotFoundError(f"there is no folder {folder}")
    if not images:
        found = "; ".join(f"{counted(len(paths), reason)}: {paths[0]!r}" for reason, paths in skipped.items())
        raise ValueError(f"no images below {folder}; found {found or 'nothing'}")
    return Listing({path: uri.join(folder, path) for path in sorted(images)}, dict(skipped))


def is_hidden(path: str) -> bool:
    """Whether a path has a part that is hidden."""
    return any(HIDDEN.fullmatch(part) for part in path.split("/"))


def without_suffix(path: str) -> str:
    """Returns the path without the ending of its last part: "sub/a.b.jpg" gives "sub/a.b"."""
    return os.path.splitext(path)[0]  # noqa: PTH122 - keys are texts, and this splits at slashes alone


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _paths(folder: str, skipped: dict[str, list[str]]) -> Iterator[str]:
    """Paths below a folder, those of hidden files too."""
    if uri.protocol(folder) != "file":
        for name in storage.list_files(folder):
            path = uri.relative(name, folder)
            if path:
                yield path
        return
    if os.path.isfile(folder):  # noqa: PTH113
        raise NotADirectoryError(f"{folder} is a file; a folder is needed here")
    yield from _walk(Path(folder), "", (), skipped)


def _walk(folder: Path, path: str, above: tuple[tuple[int, int], ...], skipped: dict[str, list[str]]) -> Iterator[str]:
    """Paths below a local folder; links to folders are followed once on each way down."""
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return  # it went while this looked
    except PermissionError:
        if not path:
            raise
        skipped[UNLISTABLE].append(path)
        return
    here = (status.st_dev, status.st_ino)
    if here in above:
        skipped[LOOPS].append(path)
        return
    if path and not entries:
        skipped[EMPTY].append(path)
    for entry in entries:
        inside = f"{path}/{entry.name}" if path else entry.name
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link that leads to itself
            is_folder = is_file = False
        if is_folder:
            if HIDDEN.fullmatch(entry.name):
                skipped[HIDDEN_FOLDERS].append(inside)
            else:
                yield from _walk(folder / entry.name, inside, (*above, here), skipped)
        elif is_file:
            yield inside
        else:
            skipped["links to nothing, sockets and the like"].append(inside)
