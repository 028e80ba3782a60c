"""Reads files, many at a time, and places in containers."""

import errno
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import fsspec

from raypipe.containers.place import Place, split_place
from raypipe.containers.read import read_places
from raypipe.storage.explain import about, explain_all
from raypipe.storage.filesystems import awaited, filesystem


def read_bytes(uri: str) -> bytes:
    """Returns the whole content of a file, or of a place in a container (`raypipe.containers.place`).

    Raises:
        FileNotFoundError: there is no such file.
        PermissionError: a server refuses access.
        ValueError: no file can exist at this URI; or the container is damaged, or has no such place.
    """
    content = read_many([uri])[uri]
    if isinstance(content, Exception):
        raise content
    return content


def read_many(uris: Iterable[str], *, end: int | None = None) -> dict[str, bytes | Exception]:
    """Returns the content at each URI or the error of `read_bytes`.

    Over a network, files are fetched in parallel, and what lies close together in a container by one request.

    Args:
        uris: of files, and of places in containers.
        end: so many bytes of the beginning are enough; None reads all.
    """
    contents: dict[str, bytes | Exception] = {}
    files: dict[fsspec.AbstractFileSystem, dict[str, str]] = {}
    places: dict[fsspec.AbstractFileSystem, dict[str, tuple[str, Place]]] = {}
    wanted = list(dict.fromkeys(uris))
    for uri in wanted:
        container, place = split_place(uri)
        try:
            fs, path = filesystem(container)
        except Exception as error:  # noqa: BLE001 - a chain opens its archive here, and each store has its own errors
            contents[uri] = error
            continue
        if place is None:
            files.setdefault(fs, {})[uri] = path
        else:
            places.setdefault(fs, {})[uri] = (path, place)
    for fs, paths in files.items():
        # Ranges without ends are whole files. Unlike `cat`, this doesn't expand asterisks in names.
        starts, ends = [None if end is None else 0] * len(paths), [end] * len(paths)
        with awaited(next(iter(paths))):
            found = fs.cat_ranges(list(paths.values()), starts, ends, on_error="return")
        if end is not None:  # stores have no range of an empty object
            found = [b"" if isinstance(one, OSError) and one.errno == errno.EINVAL else one for one in found]
        contents |= zip(paths, found, strict=True)
    for fs, some in places.items():
        with awaited(next(iter(some))):
            found = read_places(fs, some)
        contents |= {uri: one[:end] if isinstance(one, bytes) else one for uri, one in found.items()}
    explain_all(contents)
    return {uri: contents[uri] for uri in wanted}


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file of which only what is asked for is fetched."""
    with about(uri):
        fs, path = filesystem(uri)
        with fs.open(path, "rb", cache_type="none") as file:
            yield file
