"""Files by URI: local paths, s3://, and whatever else fsspec opens. Every write is atomic.

Credentials, endpoint and region come from the environment or the provider's chain (AWS_* variables), never from a
config.
"""

import hashlib
import json
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

import fsspec
import pyarrow.fs


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """The filesystem of a URI and the path in it.

    Listings are never cached: other processes write to the same place.
    """
    protocol = fsspec.utils.get_protocol(uri)
    if protocol in ("file", "local"):
        fs = fsspec.filesystem("file")
        return fs, str(Path(fs._strip_protocol(uri)).resolve())
    fs = fsspec.filesystem(protocol, use_listings_cache=False)
    return fs, cast(str, fs._strip_protocol(uri))


def absolute(uri: str) -> str:
    """The URI as other processes understand it: a relative local path counts from this process's working directory."""
    local = fsspec.utils.get_protocol(uri) in ("file", "local")
    return filesystem(uri)[1] if local else uri


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
    """
    fs, path = filesystem(uri)
    return cast(bytes, fs.cat_file(path))


def read_many(uris: Iterable[str]) -> dict[str, bytes | Exception]:
    """The content of several files, or what went wrong with each; over a network they are fetched side by side."""
    contents: dict[str, bytes | Exception] = {}
    groups: dict[fsspec.AbstractFileSystem, dict[str, str]] = {}
    for uri in uris:
        try:
            fs, path = filesystem(uri)
        except (ValueError, ImportError) as error:  # no such protocol, or its library isn't there
            contents[uri] = error
        else:
            groups.setdefault(fs, {})[uri] = path
    for fs, paths in groups.items():
        # No ends: whole files. Unlike `cat`, this takes a name with an asterisk in it as it stands.
        whole = [None] * len(paths)
        found = fs.cat_ranges(list(paths.values()), whole, whole, on_error="return")
        contents.update(zip(paths, found, strict=True))
    return contents


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
