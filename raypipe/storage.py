"""Files by URI: local paths, s3://, and whatever else fsspec opens. Every write is atomic.

Credentials, endpoint and region come from the environment or the provider's chain (AWS_* variables), never from a
config or a URI.
"""

import errno
import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

import aiohttp
import fsspec
import pyarrow.fs
from botocore.exceptions import ParamValidationError

from raypipe import uri as uris
from raypipe.credentials import refuse_credentials

_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)
"""What the system says of paths at which no file can ever be."""

_TEMPORARY = (408, 425, 429)
"""HTTP's "try again"; the other codes from 400 to 499 say that this request will never work."""


_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Ranges of one object side by side would need its size first, a second request for every image."""


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a URI and the path in it.

    Listings are never cached: other processes write to the same place.

    Raises:
        ValueError: if nothing here opens such a URI, or credentials stand in it.
    """
    refuse_credentials(uri, where="a URI")
    protocol = uris.protocol(uri)
    if protocol in ("file", "local"):
        return fsspec.filesystem("file"), uris.absolute(uri)
    try:
        fs = fsspec.filesystem(protocol, use_listings_cache=False, **_OPTIONS.get(protocol, {}))
    except (ImportError, ValueError, TypeError, AttributeError, IsADirectoryError) as error:
        raise ValueError(
            f"{protocol}:// can't be opened ({error}): needed is a path, s3://, https://, or a scheme whose fsspec "
            "package is installed on every machine"
        ) from error
    return fs, cast(str, fs._strip_protocol(uri))


def absolute(uri: str) -> str:
    """The URI as other processes understand it: a relative local path counts from this process's working directory.

    Raises:
        ValueError: if credentials stand in it.
    """
    refuse_credentials(uri, where="a URI")
    return uris.absolute(uri)


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """The same as pyarrow knows it, for Ray and Parquet."""
    fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, with single slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


def exists(uri: str) -> bool:
    """True where a file or folder is at the URI."""
    fs, path = filesystem(uri)
    return bool(fs.exists(path))


def read_bytes(uri: str) -> bytes:
    """The whole content of a file.

    Raises:
        FileNotFoundError: if there is none.
        PermissionError: if a server refuses to give it.
        ValueError: if none can be there.
    """
    content = read_many([uri])[uri]
    if isinstance(content, Exception):
        raise content
    return content


def read_many(uris: Iterable[str]) -> dict[str, bytes | Exception]:
    """The content of several files, or what `read_bytes` raises; over a network they are fetched side by side."""
    contents: dict[str, bytes | Exception] = {}
    groups: dict[fsspec.AbstractFileSystem, dict[str, str]] = {}
    for uri in uris:
        try:
            fs, path = filesystem(uri)
        except ValueError as error:
            contents[uri] = error
        else:
            groups.setdefault(fs, {})[uri] = path
    for fs, paths in groups.items():
        # No ends: whole files. Unlike `cat`, this takes a name with an asterisk in it as it stands.
        whole = [None] * len(paths)
        found = fs.cat_ranges(list(paths.values()), whole, whole, on_error="return")
        for uri, content in zip(paths, found, strict=True):
            contents[uri] = _explained(uri, content) if isinstance(content, Exception) else content
    return contents


def _explained(uri: str, error: Exception) -> Exception:
    """What will never work told from what may work at another time."""
    explained: Exception = error
    if isinstance(error, ParamValidationError):
        explained = ValueError(f"{uri[:200]} is no object's URI: needed is s3://bucket/key")
    elif isinstance(error, aiohttp.ClientResponseError):
        if 400 <= error.status < 500 and error.status not in _TEMPORARY:
            explained = PermissionError(f"the server answers {error.status} {error.message}")
    elif isinstance(error, OSError) and error.errno in _IMPOSSIBLE:
        explained = ValueError(f"no file can be at {uri[:200]}: {error.strerror}")
    if explained is not error:
        explained.__cause__ = error
    return explained


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Writes a file so that no reader ever sees a part of it.

    Object stores show an object when its upload is complete. A local file is written under a temporary name first,
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
    """A file to write bit by bit, in flat memory, of which no reader ever sees a part; after an error there is none."""
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
    """URIs of all files under a folder, sorted; an absent folder has none. Temporary files are left out."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    if not fs.exists(path):
        return []
    return sorted(
        fs.unstrip_protocol(name) for name in fs.find(path) if name.endswith(suffix) and not name.endswith(".tmp")
    )


def digest(value: Any) -> str:
    """Digest of a JSON-serialisable value (12 hex digits), independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def bytes_digest(data: bytes) -> str:
    """Digest of bytes (12 hex digits)."""
    return hashlib.sha256(data).hexdigest()[:12]
