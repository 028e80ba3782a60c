"""Says of an error of reading what it is about, and whether it will ever go away."""

import errno
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

from raypipe.containers.place import split_place
from raypipe.faults import is_denied
from raypipe.messages.chains import note
from raypipe.storage.filesystems import awaited, filesystem

IMPOSSIBLE = (errno.ENAMETOOLONG, errno.ELOOP)
"""Error numbers of paths at which no file can ever exist."""

_TEMPORARY = (408, 425, 429)
"""HTTP codes that mean "try again"; the other codes from 400 to 499 mean that the request will never work."""

_readable: dict[str, str] = {}
"""By bucket, the URI that was read there last."""


@contextmanager
def about(uri: str) -> Iterator[None]:
    """Notes on the errors raised inside which file they are about: the texts of many don't say it."""
    try:
        yield
    except Exception as error:
        note(error, uri)
        raise


def explain_all(contents: MutableMapping[str, bytes | Exception]) -> None:
    """Explains the errors among what was read.

    An error that will never go away becomes a ValueError or PermissionError; others may go away, and stay. What is
    refused alone in a bucket is its own fault, else it is this machine's.

    Args:
        contents: by URI, bytes or the error of reading them; changed in place.
    """
    good = {_bucket(uri): uri for uri, content in contents.items() if isinstance(content, bytes)}
    _readable.update(good)
    looked: dict[str, bool] = dict.fromkeys(good, True)
    for uri, content in contents.items():
        if not isinstance(content, Exception):
            continue
        explained = _explained(uri, content)
        if is_denied(content):
            bucket = _bucket(uri)
            if bucket not in looked:
                looked[bucket] = _can_be_read(_readable.get(bucket))
            if looked[bucket]:
                # Without what it was raised from, which would speak of this machine's credentials.
                explained = PermissionError(f"{uri} may not be read, while others in {bucket} may: {content}")
        note(explained, uri)
        contents[uri] = explained


def _bucket(uri: str) -> str:
    return "/".join(uri.split("/", 3)[:3])


def _can_be_read(uri: str | None) -> bool:
    """Whether what could be read before still can."""
    if uri is None:
        return False
    fs, path = filesystem(split_place(uri)[0])
    try:
        with awaited(uri):
            fs.cat_file(path, start=0, end=1)
    except Exception:  # noqa: BLE001 - whatever it is, it can't
        return False
    return True


def _explained(uri: str, error: Exception) -> Exception:
    # Whoever raised such an error has imported its library; nobody else needs it.
    botocore, aiohttp = sys.modules.get("botocore.exceptions"), sys.modules.get("aiohttp")
    explained: Exception = error
    if botocore and isinstance(error, botocore.ParamValidationError):
        explained = ValueError(f"expected s3://bucket/key, got {uri[:200]}")
    elif aiohttp and isinstance(error, aiohttp.ClientResponseError):
        if 400 <= error.status < 500 and error.status not in _TEMPORARY:
            explained = PermissionError(f"the server answers {error.status} {error.message}")
    elif isinstance(error, OSError) and error.errno in IMPOSSIBLE:
        explained = ValueError(f"no file can be at {uri[:200]}: {error.strerror}")
    elif isinstance(error, FileNotFoundError) and (uri not in str(error) or uri == str(error)):
        explained = FileNotFoundError(f"there is no file {uri[:1000]}")
    if explained is not error:
        explained.__cause__ = error
    return explained
