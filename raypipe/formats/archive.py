"""Files of a folder or of a zip, as tools of annotation give exports away."""

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from raypipe import storage, uri

LARGEST = 2**28
"""Bytes of a file in a zip, unpacked: a mask has fewer, and a few packed ones may say that they are more."""


class Archive(Protocol):
    """Files by their paths."""

    def names(self) -> list[str]:
        """All paths, sorted."""

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            ValueError: it is damaged, or too large.
        """


class _Folder:
    def __init__(self, root: str) -> None:
        self.root = root

    def names(self) -> list[str]:
        return sorted(uri.relative(place, self.root) or "" for place in storage.list_files(self.root))

    def read(self, name: str) -> bytes:
        return storage.read_bytes(storage.join(self.root, name))


class _Zip:
    def __init__(self, file: zipfile.ZipFile) -> None:
        self.file = file

    def names(self) -> list[str]:
        return sorted(info.filename for info in self.file.infolist() if not info.is_dir())

    def read(self, name: str) -> bytes:
        if (size := self.file.getinfo(name).file_size) > LARGEST:
            raise ValueError(f"{name} is {size:,} bytes unpacked; allowed are {LARGEST:,}")
        try:
            with self.file.open(name) as entry:
                content = entry.read(LARGEST + 1)
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise ValueError(f"{name} can't be unpacked: {error}") from error
        if len(content) > LARGEST:
            raise ValueError(f"{name} is more than {LARGEST:,} bytes unpacked")
        return content


@contextmanager
def open_archive(source: str) -> Iterator[Archive]:
    """Opens a zip, or a folder.

    Args:
        source: absolute URI.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: the file is no zip.
    """
    if uri.suffix_of(source) != ".zip":
        folder = _Folder(source)
        if not folder.names():
            raise FileNotFoundError(f"there is no folder {source}, or nothing in it")
        yield folder
        return
    with storage.opened(source) as file:
        try:
            with zipfile.ZipFile(file) as opened:
                yield _Zip(opened)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{source} is no zip, or a damaged one: {error}") from error
