"""Reads and writes files by URI: local paths, s3://, and whatever else fsspec opens. Every write is atomic.

Credentials, endpoint and region come from the environment or the provider's chain (AWS_* variables), never from a
config or a URI.
"""

import errno
import hashlib
import inspect
import json
import os
import sys
import tempfile
import uuid
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import fsspec
import pyarrow.fs
from fsspec.implementations.local import LocalFileSystem

from raypipe import uri as uris
from raypipe.containers.place import Place, split_place
from raypipe.containers.read import read_places
from raypipe.credentials import refuse_credentials
from raypipe.faults import is_denied
from raypipe.progress import waiting

_IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)
"""Error numbers of paths at which no file can ever exist."""

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Error numbers of mounts that have no hard links."""

_TEMPORARY = (408, 425, 429)
"""HTTP codes that mean "try again"; the other codes from 400 to 499 mean that the request will never work."""


_NUM_THREADS = 16
"""Files that are deleted, and listings that are asked for, at a time."""

_readable: dict[str, str] = {}
"""By bucket, the URI that was read there last."""

_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Options of fsspec's filesystems. Reading an object in parallel ranges would need its size first, which is a second
request for every image."""

_PATIENT: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 10}}}}
"""Those with which storage that is away for some 20 seconds is waited for: by itself botocore gives up after a few."""


def filesystem(uri: str, *, patient: bool = False) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the filesystem of a URI and the path in it.

    Listings are never cached, because other processes write to the same place.

    Args:
        uri: what is to be opened.
        patient: waits longer for storage that is away, where nobody tries again.

    Raises:
        ValueError: nothing that is installed opens such a URI, or the URI holds credentials.
    """
    refuse_credentials(uri, where="a URI")
    protocol = uris.protocol(uri)
    if protocol in ("file", "local"):
        return fsspec.filesystem("file"), uris.absolute(uri)
    try:
        options = _OPTIONS.get(protocol, {}) | (_PATIENT.get(protocol, {}) if patient else {})
        fs = fsspec.filesystem(protocol, use_listings_cache=False, **options)
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
    """Returns pyarrow's filesystem of a URI and the path in it, for Ray and Parquet.

    It is patient: to Ray Train, one request that fails is a training that fails.
    """
    fs, path = filesystem(uri, patient=True)
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
        with waiting():
            found = fs.cat_ranges(list(paths.values()), whole, whole, on_error="return")
        contents |= zip(paths, found, strict=True)
    for fs, some in places.items():
        with waiting():
            contents |= read_places(fs, some)
    good = {_bucket(uri): uri for uri, content in contents.items() if isinstance(content, bytes)}
    _readable.update(good)
    looked: dict[str, bool] = dict.fromkeys(good, True)
    for uri, content in contents.items():
        if not isinstance(content, Exception):
            continue
        if is_denied(content):
            bucket = _bucket(uri)
            if bucket not in looked:
                looked[bucket] = _can_be_read(_readable.get(bucket))
            if looked[bucket]:
                # Without what it was raised from, which would speak of this machine's credentials.
                reason = f"{uri} may not be read, while others in {bucket} may: {content}"
                contents[uri] = PermissionError(reason)
                continue
        contents[uri] = _explained(uri, content)
    return {uri: contents[uri] for uri in wanted}


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _can_be_read(uri: str | None) -> bool:
    """Whether what could be read before still can."""
    if uri is None:
        return False
    fs, path = filesystem(split_place(uri)[0])
    try:
        with waiting():
            fs.cat_file(path, start=0, end=1)
    except Exception:  # noqa: BLE001 - whatever it is, it can't
        return False
    return True


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


@contextmanager
def opened(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file of which only what is asked for is fetched."""
    fs, path = filesystem(uri)
    with fs.open(path, "rb", cache_type="none") as file:
        yield file


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Writes a file so that no reader ever sees a part of it; of several writers the last one wins.

    Object stores show an object when its upload is complete. A local file is first written under a temporary name and
    then renamed.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with _beside(path) as temporary:
            temporary.write_bytes(data)
            temporary.replace(path)
    else:
        with waiting():
            fs.pipe_file(path, data)


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file to write piece by piece. It appears only when it is complete, and not at all after an error."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")  # noqa: PTH118 - fsspec takes texts
        with open(path, "wb") as file:  # noqa: PTH123
            yield file
        fs, target = filesystem(uri)
        if isinstance(fs, LocalFileSystem):
            with _beside(target) as temporary:
                fs.put_file(path, str(temporary))
                temporary.replace(target)
        else:
            with waiting():
                fs.put_file(path, target)


def create_exclusive(uri: str, data: bytes) -> bool:
    """Writes a file that isn't there yet; of several writers one succeeds.

    Local disks and NFS keep this promise by a hard link, which nobody can make twice, or on a mount without links by
    creating the file exclusively, where a reader may find it empty for a moment. S3 keeps it by `If-None-Match: *`,
    which AWS, Ceph and MinIO honour, and gs:// and az:// by conditions of their own. A store that refuses or ignores
    the condition is asked before whether the file is there: writers may all succeed if they come within that moment,
    and the file holds what the last one wrote.

    Returns:
        False if the file is there and holds other bytes. The same bytes are taken for this writer's own, because the
        answer to a request may get lost: several writers need something in their bytes that tells them apart.
    """
    fs, path = filesystem(uri)
    if isinstance(fs, LocalFileSystem):
        with _beside(path) as temporary:
            temporary.write_bytes(data)
            return _link(temporary, Path(path))
    if fs.exists(path):
        return read_bytes(uri) == data
    try:
        fs.pipe_file(path, data, mode="create")
    except Exception as error:  # noqa: BLE001 - each store has a name of its own for "it is there"
        if isinstance(error, OSError) and error.errno == errno.ENOSYS:
            fs.pipe_file(path, data)
            return True
        try:
            return read_bytes(uri) == data
        except FileNotFoundError:
            raise error from None
    return True


def _link(temporary: Path, path: Path) -> bool:
    """Gives a finished file a second name; False if the name is taken."""
    try:
        path.hardlink_to(temporary)
    except FileExistsError:
        return temporary.stat().st_nlink > 1  # over NFS the answer to a link that was made may get lost
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        try:
            with path.open("xb") as file:
                file.write(temporary.read_bytes())
        except FileExistsError:
            return False
    return True


@contextmanager
def _beside(path: str) -> Iterator[Path]:
    """A name for a temporary file beside a local one, in whose folder it is made; at the end no such file is left."""
    temporary = Path(f"{path}.{uuid.uuid4().hex}.tmp")
    temporary.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def delete(uri: str) -> None:
    """Deletes a file."""
    fs, path = filesystem(uri)
    fs.rm_file(path)


def delete_many(uris: Iterable[str]) -> None:
    """Deletes files, many at a time: an object store takes as long for sixteen as for one."""
    found = [filesystem(uri) for uri in uris]  # here: in each thread, fsspec would make a client of its own
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for _ in threads.map(lambda place: place[0].rm_file(place[1]), found):  # raises what a deletion has raised
            pass


def list_files(uri: str, *, suffix: str = "", starts: Collection[str] = ("",)) -> list[str]:
    """Returns the sorted URIs of all files below a folder, without temporary ones; an absent folder has none.

    Files and folders that come or go meanwhile are in the list or not.

    Args:
        uri: of the folder.
        suffix: with which a file's name ends.
        starts: with one of which a file's path in the folder begins, and none of which begins with another one. An
            object store names a thousand files an answer, one answer after the other, but those of several starts at
            the same time: some starts make a listing of many files faster.

    Raises:
        OSError: a folder that is there can't be listed: its files must not be taken for absent.
    """
    return sorted(list_sizes(uri, suffix=suffix, starts=starts))


def list_sizes(uri: str, *, suffix: str = "", starts: Collection[str] = ("",)) -> dict[str, int | None]:
    """Returns the files of `list_files` with their bytes, as far as the listing tells them."""
    fs, path = filesystem(uri)
    fs.invalidate_cache()
    sizes: dict[str, int | None]
    try:
        with waiting():
            sizes = dict.fromkeys(_local_files(path)) if isinstance(fs, LocalFileSystem) else _found(fs, path, starts)
    except FileNotFoundError:  # the bucket
        return {}
    beginnings = tuple(f"{path.rstrip('/')}/{start}" for start in starts if start)
    return {
        fs.unstrip_protocol(name): size
        for name, size in sizes.items()
        if name.endswith(suffix) and not name.endswith(".tmp") and (not beginnings or name.startswith(beginnings))
    }


def _found(fs: fsspec.AbstractFileSystem, path: str, starts: Collection[str]) -> dict[str, int | None]:
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


def digest(value: Any) -> str:
    """Returns a digest (12 hex digits) of a JSON-serialisable value, which doesn't depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def bytes_digest(data: bytes) -> str:
    """Returns a digest (12 hex digits) of bytes."""
    return hashlib.sha256(data).hexdigest()[:12]
