"""Finds out which files there are."""

import inspect
import os
import re
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from raypipe.progress import waiting
from raypipe.storage.explain import IMPOSSIBLE, about
from raypipe.storage.filesystems import filesystem
from raypipe.uri import absolute, behind, is_local, join, name_of, parent, relative

_NUM_THREADS = 16
"""Listings that are asked for at a time."""


def exists(uri: str) -> bool:
    """Returns True if a file or folder is at the URI.

    Raises:
        OSError: (or another error of the store's) it can't be known.
    """
    with about(uri), waiting():
        fs, path = filesystem(uri)
        try:
            if isinstance(fs, LocalFileSystem):
                Path(path).stat()
            elif not fs.exists(path):
                # fsspec takes a web server that doesn't answer for one that says no.
                return _is_web(fs) and bool(fs.cat_file(path, start=0, end=1) or True)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            if error.errno in IMPOSSIBLE:
                return False
            raise
        return True


def list_files(uri: str, *, suffix: str = "", starts: Collection[str] = ("",)) -> list[str]:
    """Returns the sorted URIs of all files below a folder, without temporary ones; an absent folder has none.

    Files and folders that come or go meanwhile are in the list or not.

    Args:
        uri: of the folder.
        suffix: with which a file's name ends.
        starts: with one of which a file's path in the folder begins, and none of which begins with another one. An
            object store names a thousand files an answer, one answer after the other, but those of several starts at
            the same time: some starts make a listing of many files faster.

    Returns:
        Absolute forms, as of `raypipe.uri`.

    Raises:
        OSError: a folder that is there can't be listed: its files must not be taken for absent.
    """
    return sorted(list_sizes(uri, suffix=suffix, starts=starts))


def list_sizes(uri: str, *, suffix: str = "", starts: Collection[str] = ("",)) -> dict[str, int | None]:
    """Returns the files of `list_files` with their bytes, as far as the listing tells them."""
    with about(uri):
        fs, path = filesystem(uri)
        fs.invalidate_cache()
        sizes: dict[str, int | None]
        try:
            with waiting():
                local = isinstance(fs, LocalFileSystem)
                sizes = dict.fromkeys(_local_files(path)) if local else _found(fs, path, starts)
        except FileNotFoundError:  # the bucket
            return {}
    beginnings = tuple(f"{path.rstrip('/')}/{start}" for start in starts if start)
    return {
        _uri(each, absolute(uri), path): size
        for each, size in sizes.items()
        if each.endswith(suffix) and not each.endswith(".tmp") and (not beginnings or each.startswith(beginnings))
    }


def list_folders(uri: str) -> list[str]:
    """Returns the sorted URIs of the folders directly in a folder, by one listing; an absent folder has none.

    Raises:
        OSError: as of `list_files`.
    """
    with about(uri), waiting():
        fs, path = filesystem(uri)
        fs.invalidate_cache()
        try:
            found = fs.ls(path, detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return []
    folders = (each["name"].rstrip("/") for each in found if each["type"] == "directory")
    return sorted(_uri(name, absolute(uri), path) for name in folders if name != path.rstrip("/"))


def glob(pattern: str) -> list[str]:
    """Returns the sorted absolute forms of the files and folders that a pattern with `*`, `?` and `[…]` matches."""
    with about(pattern), waiting():
        fs, path = filesystem(pattern)
        known = re.split(r"[*?[]", pattern, maxsplit=1)[0]
        folder = parent(absolute(f"{known}x"))
        return sorted(_uri(each, folder, filesystem(folder)[1]) for each in fs.glob(path))


def _uri(name: str, folder: str, path: str) -> str:
    """The URI of what a filesystem calls by a name and lists below the path of a folder."""
    if is_local(folder):
        return name
    if "://" in name:  # fsspec's names of a web server's files are their URLs, encoded as the server likes
        decoded = None if "%2f" in name.lower() else relative(name, folder)
        return name if decoded is None else join(folder, decoded)
    inside = name.removeprefix(path.rstrip("/")).removeprefix("/")
    if not inside:
        return folder
    return join(folder, inside) if behind(folder) else f"{folder.rstrip('/')}/{inside}"


def _is_web(fs: fsspec.AbstractFileSystem) -> bool:
    return "https" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))  # its class imports aiohttp


def _found(fs: fsspec.AbstractFileSystem, path: str, starts: Collection[str]) -> dict[str, int | None]:
    if _is_web(fs):
        # Pages of folders have links to themselves, sorted in other ways.
        found = fs.find(path, detail=True, on_error="raise")
        return {name: each["size"] for name, each in found.items() if "?" not in name and name_of(name)}
    if "prefix" not in inspect.signature(fs.find).parameters:
        starts = ("",)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        some = threads.map(lambda start: fs.find(path, detail=True, **({"prefix": start} if start else {})), starts)
        return {name: found["size"] for listing in some for name, found in listing.items()}


def _local_files(path: str) -> list[str]:
    # fsspec's own `find` takes a folder that it can't list for an empty one.
    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise error

    if os.path.isfile(path):  # noqa: PTH113 - fsspec's paths are texts
        return [path]
    walk = os.walk(path, onerror=refuse)
    return [f"{folder.rstrip('/')}/{name}" for folder, _, names in walk for name in names]
