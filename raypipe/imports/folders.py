"""What lies in folders, each of which is listed once, and the file that a name stands for."""

import difflib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property

from raypipe import storage, uri
from raypipe.formats.listing import IMAGE_SUFFIXES, without_suffix

UNLISTED = ("http", "https")
"""Schemes whose servers name no files."""

_THREADS = 16


@dataclass
class Names:
    """Names of what is in a folder."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)

    @cached_property
    def composed(self) -> dict[str, list[str]]:
        """Files by their name with composed accents, and images also by that without ending."""
        found: dict[str, list[str]] = {}
        for name in sorted(self.files):
            keys = {composed(name)}
            if name.lower().endswith(IMAGE_SUFFIXES):
                keys.add(composed(without_suffix(name)))
            for key in keys:
                found.setdefault(key, []).append(name)
        return found


class Folders:
    """Folders of a filesystem, by their absolute URIs."""

    def __init__(self) -> None:
        self._known: dict[str, Names] = {}

    def add_tree(self, root: str, paths: Iterable[str]) -> None:
        """Takes the files below a folder as listed."""
        self._known.setdefault(root, Names())
        of_path = {"": root}
        for path in paths:
            folder, _, name = path.rpartition("/")
            if folder not in of_path:
                self._add_folder(folder, of_path)
            self._known[of_path[folder]].files.add(name)

    def _add_folder(self, path: str, of_path: dict[str, str]) -> None:
        above, _, name = path.rpartition("/")
        if above not in of_path:
            self._add_folder(above, of_path)
        of_path[path] = uri.join(of_path[above], name)
        self._known[of_path[above]].folders.add(name)
        self._known.setdefault(of_path[path], Names())

    def list_all(self, folders: Sequence[str]) -> None:
        """Lists folders, many at a time."""
        unknown = [folder for folder in dict.fromkeys(folders) if folder not in self._known]
        with ThreadPoolExecutor(_THREADS) as threads:
            self._known |= zip(unknown, threads.map(_list, unknown), strict=True)

    def of(self, folder: str) -> Names:
        """What is in a folder; nothing where it isn't there."""
        if folder not in self._known:
            self._known[folder] = _list(folder)
        return self._known[folder]

    def find(self, wanted: str, *, any_ending: bool) -> list[str]:
        """Returns the files that a URI may stand for: none, one, or several with the same name but for the ending.

        Args:
            wanted: an absolute URI.
            any_ending: an image may be named without its ending.
        """
        folder, name = uri.parent(wanted), uri.name_of(wanted)
        if name in self.of(folder).files:
            return [wanted]
        actual = self._actual(folder)
        found = [] if actual is None else self.of(actual).composed.get(composed(name), [])
        same = [one for one in found if composed(one) == composed(name)]
        found = same[:1] or (found if any_ending else [])
        return [uri.join(actual or folder, one) for one in found]

    def _actual(self, folder: str) -> str | None:
        """The folder that is there under a name, whose accents may be written in another way."""
        names = self.of(folder)
        if names.files or names.folders:
            return folder
        above = uri.parent(folder)
        if above == folder or (actual := self._actual(above)) is None:
            return None
        name = uri.name_of(folder)
        return next(
            (uri.join(actual, one) for one in sorted(self.of(actual).folders) if composed(one) == composed(name)), None
        )

    def nearest(self, wanted: str) -> str | None:
        """The URI of what is there that is most like a name that isn't."""
        folder, name = uri.parent(wanted), uri.name_of(wanted)
        names = self.of(folder)
        by_form = {_form(one): one for one in (*names.folders, *names.files)}
        if (same := by_form.get(_form(name))) is not None:
            return uri.join(folder, same)
        elsewhere = next((one for one, inside in self._known.items() if name in inside.files), None)
        if elsewhere is not None:
            return uri.join(elsewhere, name)
        if not by_form:
            return None if folder == wanted else self.nearest(folder)
        near = difflib.get_close_matches(_form(name), list(by_form)[:5_000], n=1)
        return uri.join(folder, by_form[near[0]]) if near else None


def composed(name: str) -> str:
    """The name with composed accents: é is one character on most systems, and two on macOS."""
    return unicodedata.normalize("NFC", name)


def _form(name: str) -> str:
    return composed(name).casefold()


def _list(folder: str) -> Names:
    if uri.protocol(folder) == "file":
        try:
            with os.scandir(folder) as entries:
                found = [(entry.name, entry.is_dir()) for entry in entries]
        except (FileNotFoundError, NotADirectoryError):
            return Names()
        return Names(
            {name for name, is_folder in found if not is_folder}, {name for name, is_folder in found if is_folder}
        )
    fs, path = storage.filesystem(folder)
    fs.invalidate_cache()
    try:
        entries_ = fs.ls(path, detail=True)
    except (FileNotFoundError, NotADirectoryError):
        return Names()
    names = Names()
    for entry in entries_:
        if entry["name"].rstrip("/") == path.rstrip("/"):
            continue  # an empty object that marks the folder itself
        name = entry["name"].rstrip("/").rpartition("/")[2]
        (names.folders if entry["type"] == "directory" else names.files).add(name)
    return names
