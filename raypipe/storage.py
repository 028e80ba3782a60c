"""Reads and writes files by URI: local paths, s3://, and whatever else fsspec opens. Every write is atomic.

Credentials, endpoint and region come from the environment or the provider's chain (AWS_* variables), never from a
config or a URI.
"""

import errno
import hashlib
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import fsspec
import pyarrow.fs

from raypipe import uri as uris
from raypipe.containers.place import Place, split_place
from raypipe.containers.read import read_places
from raypipe.credentials import refuse_credentials

_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)
"""Error numbers of paths at which no file can ever exist."""

_TEMPORARY = (408, 425, 429)
"""HTTP codes that mean "try again"; the other codes from 400 to 499 mean that the request will never work."""


_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Options of fsspec's filesystems. Reading an object in parallel ranges would need its size first, which is a second
request for every image."""


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the filesystem of a URI and the path in it.

    Listings are never cached, because other processes write to the same place.

    Raises:
        ValueError: nothing that is installed opens such a URI, or the URI holds credentials.
    """
    refuse_credentials(uri, where="a URI")
    protocol = uris.protocol(uri)
    if protocol in ("file", "local"):
        return fsspec.filesystem("file"), uris.absolute(uri)
    try:
        fs = fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}))
    except (ImportError, ValueError, TypeError, AttributeError, IsADirectoryError) as error:
        raise ValueError(
            f"{protocol}:// can't be opened ({error}): expected a path, s3://, https://, or a scheme whose fsspec "
            "package is installed on every machine"
        ) from error
    return fs, cast(str, fs._strip_protocol(uri))


def absolute(uri: str) -> str:
    """Returns the URI in a form that other processes understand: a local path becomes absolute.

    Raises:
        ValueError: the URI holds credentials.
    """
    refuse_credentials(uri, where="a URI")
    return uris.absolute(uri)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns pyarrow's filesystem of a URI and the path in it, for Ray and Parquet."""
    fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def join(uri: str, *parts: str) -> str:
    """Returns `uri/part/part`, with single slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(uri: str) -> bool:
    """Returns True if a file or folder is at the URI."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


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


def read_many(uris: Iterable[str]) -> dict[str, bytes | Exception]:
    """Returns the content at each URI or the error of `read_bytes`.

    Over a network, files are fetched in parallel, and what lies close together in a container by one request.
    """
    contents: dict[str, bytes | Exception] = {}
    files: dict[fsspec.AbstractFileSystem, dict[str, str]] = {}
    places: dict[fsspec.AbstractFileSystem, dict[str, tuple[str, Place]]] = {}
    wanted = list(dict.fromkeys(uris))
    for uri in wanted:
        container, place = split_place(uri)
        try:
            fs, path = filesystem(container)
        except ValueError as error:
            contents[uri] = error
            continue
        if place is None:
            files.setdefault(fs, {})[uri] = path
        else:
            places.setdefault(fs, {})[uri] = (path, place)
    for fs, paths in files.items():
        # Ranges without ends are whole files. Unlike `cat`, this doesn't expand asterisks in names.
        whole = [None] * len(paths)
        found = fs.cat_ranges(list(paths.values()), whole, whole, on_error="return")
        contents |= zip(paths, found, strict=True)
    for fs, some in places.items():
        contents |= read_places(fs, some)
    for uri, content in contents.items():
        if isinstance(content, Exception):
            contents[uri] = _explained(uri, content)
    return {uri: contents[uri] for uri in wanted}


def _explained(uri: str, error: Exception) -> Exception:
    """Turns an error that will never go away into a ValueError or PermissionError; others may go away and stay."""
    # Whoever raised such an error has imported its library; nobody else needs it.
    botocore, aiohttp = sys.modules.get("botocore.exceptions"), sys.modules.get("aiohttp")
    explained: Exception = error
    if botocore and isinstance(error, botocore.ParamValidationError):
        explained = ValueError(f"expected s3://bucket/key, got {uri[:200]}")
    elif aiohttp and isinstance(error, aiohttp.ClientResponseError):
        if 400 <= error.status < 500 and error.status not in _TEMPORARY:
            explained = PermissionError(f"the server answers {error.status} {error.message}")
    elif isinstance(error, OSError) and error.errno in _IMPOSSIBLE:
        explained = ValueError(f"no file can be at {uri[:200]}: {error.strerror}")
    if explained is not error:
        explained.__cause__ = error
    return explained


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Writes a file so that no reader ever sees a part of it.

    Object stores show an object when its upload is complete. A local file is first written under a temporary name and
    then renamed.
    """
    fs, path = filesystem(uri)
    if fs.protocol == "file" or "file" in fs.protocol:
        fs.makedirs(fs._parent(path), exist_ok=True)
        temporary = f"{path}.{uuid.uuid4().hex}.tmp"
        fs.pipe_file(temporary, data)
        fs.mv(temporary, path)
    else:
        fs.pipe_file(path, data)


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file to write piece by piece. It appears only when it is complete, and not at all after an error."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")  # noqa: PTH118 - fsspec takes texts
        with open(path, "wb") as file:  # noqa: PTH123
            yield file
        fs, target = filesystem(uri)
        if "file" in fs.protocol:
            fs.makedirs(fs._parent(target), exist_ok=True)
            temporary = f"{target}.{uuid.uuid4().hex}.tmp"
            fs.put_file(path, temporary)
            fs.mv(temporary, target)
        else:
            fs.put_file(path, target)


def delete(uri: str) -> None:
    """Deletes a file."""
    fs, path = filesystem(uri)
    fs.rm_file(path)


def list_files(uri: str, *, suffix: str = "") -> list[str]:
    """Returns the sorted URIs of all files below a folder, without temporary ones; an absent folder has none."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    if not fs.exists(path):
        return []
    return sorted(
        fs.unstrip_protocol(name) for name in fs.find(path) if name.endswith(suffix) and not name.endswith(".tmp")
    )


def digest(value: Any) -> str:
    """Returns a digest (12 hex digits) of a JSON-serialisable value, which doesn't depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def bytes_digest(data: bytes) -> str:
    """Returns a digest (12 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()[:12]
