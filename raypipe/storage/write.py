"""Writes files so that nobody sees a part of them, and deletes them."""

import errno
import os
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from fsspec.implementations.local import LocalFileSystem

from raypipe.storage.explain import about
from raypipe.storage.filesystems import awaited, filesystem
from raypipe.storage.read import read_bytes

_NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK)
"""Error numbers of mounts that have no hard links."""

_NUM_THREADS = 16
"""Files that are deleted at a time."""


def write_bytes_atomic(uri: str, data: bytes) -> None:
    """Writes a file so that no reader ever sees a part of it; of several writers the last one wins.

    Object stores show an object when its upload is complete. A local file is first written under a temporary name and
    then renamed.
    """
    with about(uri):
        fs, path = filesystem(uri)
        if isinstance(fs, LocalFileSystem):
            with _beside(path) as temporary:
                temporary.write_bytes(data)
                temporary.replace(path)
        else:
            with awaited(uri):
                fs.pipe_file(path, data)


@contextmanager
def writing(uri: str) -> Iterator[IO[bytes]]:
    """Opens a file to write piece by piece. It appears only when it is complete, and not at all after an error."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "file")  # noqa: PTH118 - fsspec takes texts
        with open(path, "wb") as file:  # noqa: PTH123
            yield file
        with about(uri):
            fs, target = filesystem(uri)
            if isinstance(fs, LocalFileSystem):
                with _beside(target) as temporary:
                    fs.put_file(path, str(temporary))
                    temporary.replace(target)
            else:
                with awaited(uri):
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
    with about(uri):
        return _create_exclusive(uri, data)


def _create_exclusive(uri: str, data: bytes) -> bool:
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
    """A name for a temporary file beside a local one, in whose folder it is made; at the end no such file is left.

    Errors name the local file, which someone has asked for, instead of the temporary one.
    """
    temporary = Path(path).parent / f"{uuid.uuid4().hex}.tmp"  # without the file's name, which may be as long as can be
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        above = next(folder for folder in temporary.parents if folder.exists())
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(above)) from error
    try:
        yield temporary
    except OSError as error:
        if error.errno is None or str(temporary) not in (error.filename, error.filename2):
            raise
        # No file of any name can be made in a folder that is there: it is one such as /proc.
        number = errno.EPERM if error.errno == errno.ENOENT else error.errno
        raise OSError(number, os.strerror(number), path) from error
    finally:
        temporary.unlink(missing_ok=True)


def delete(uri: str) -> None:
    """Deletes a file."""
    with about(uri):
        fs, path = filesystem(uri)
        fs.rm_file(path)


def delete_many(uris: Iterable[str]) -> None:
    """Deletes files, many at a time: an object store takes as long for sixteen as for one."""
    found = [filesystem(uri) for uri in uris]  # here: in each thread, fsspec would make a client of its own
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        for _ in threads.map(lambda place: place[0].rm_file(place[1]), found):  # raises what a deletion has raised
            pass
