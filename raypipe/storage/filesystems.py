"""Opens what a URI lies in, with the options that raypipe wants of it."""

import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from typing import Any, cast

import fsspec
import pyarrow.fs

from raypipe.progress import waiting
from raypipe.uri import CACHES, absolute, behind, is_local, protocol

_OPTIONS: dict[str, dict[str, Any]] = {"s3": {"max_concurrency": 1}}
"""Options of fsspec's filesystems. Reading an object in parallel ranges would need its size first, which is a second
request for every image."""

_PATIENT: dict[str, dict[str, Any]] = {"s3": {"config_kwargs": {"retries": {"mode": "standard", "max_attempts": 10}}}}
"""Those with which storage that is away for some 20 seconds is waited for: by itself botocore gives up after a few."""

_patient: ContextVar[bool] = ContextVar("patient", default=False)

_OPEN_CHAINS = 16
"""Archives, and caches, that a process keeps open, those used last."""


@contextmanager
def patience() -> Iterator[None]:
    """Waits longer for storage that is away, within and in this thread: for what nobody tries again.

    A place that is looked at first doesn't belong here, for it takes a minute to say that an address is wrong.
    """
    before = _patient.set(True)
    try:
        yield
    finally:
        _patient.reset(before)


def awaited(uri: str) -> AbstractContextManager[None]:
    """Doesn't count this thread's time within (`raypipe.progress`): the store of a URI may take long to answer.

    A local file's is counted: a mount that never answers, or a pipe among the images, is found out as anything that
    hangs.
    """
    return nullcontext() if is_local(uri) else waiting()


def filesystem(uri: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the filesystem of a URI and the path in it.

    Listings are never cached, because other processes write to the same place.

    Raises:
        ValueError: nothing that is installed opens such a URI, or it is none (`raypipe.uri.absolute`); or the archive
            that a chain names is damaged.
        OSError: the archive that a chain names can't be opened.
    """
    uri = absolute(uri)
    scheme = protocol(uri)
    if scheme == "file":
        return fsspec.filesystem("file"), uri
    if inner := behind(uri):
        fs, path = filesystem(inner)
        if scheme in CACHES.split("|"):
            return _cache(scheme, fs), path
        return _archive(scheme, fs, path), uri.partition("::")[0].partition("://")[2]
    options = _OPTIONS.get(scheme, {}) | (_PATIENT.get(scheme, {}) if _patient.get() else {})
    try:
        named = fsspec.get_filesystem_class(scheme)._get_kwargs_from_urls(uri)  # such as the host of sftp://
        fs = fsspec.filesystem(scheme, **{"use_listings_cache": False, **named, **options})
    except (ImportError, ValueError, TypeError, AttributeError, IsADirectoryError) as error:
        raise ValueError(
            f"{scheme}:// can't be opened ({error}): expected a path, s3://, https://, or a scheme whose fsspec "
            "package is installed on every machine"
        ) from error
    return fs, cast(str, fs._strip_protocol(uri))


def arrow_filesystem(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Returns pyarrow's filesystem of a URI and the path in it, for Ray and Parquet.

    It is patient: to Ray Train, one request that fails is a training that fails.
    """
    with patience():
        fs, path = filesystem(uri)
    return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fs)), path


@lru_cache(_OPEN_CHAINS)
def _cache(scheme: str, fs: fsspec.AbstractFileSystem) -> fsspec.AbstractFileSystem:
    return fsspec.filesystem(scheme, fs=fs, skip_instance_cache=True)


@lru_cache(_OPEN_CHAINS)
def _archive(scheme: str, fs: fsspec.AbstractFileSystem, path: str) -> fsspec.AbstractFileSystem:
    try:
        return fsspec.filesystem(scheme, fo=fs.open(path, "rb"), skip_instance_cache=True)
    except (zipfile.BadZipFile, tarfile.TarError) as error:
        raise ValueError(f"{path} is no {scheme} archive, or a damaged one ({error})") from error
