"""Folders of class activation maps that psa or irn saved, as plain arrays."""

import json
import posixpath
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from raypipe import storage
from raypipe.formats.cams.plain_arrays import LENGTH
from raypipe.formats.listing import without_suffix

INDEX_FILE = "cams.json"

SECONDS_PER_FILE = 60
"""A file that takes longer is none that was made to be read."""


def import_cams(folder: str, out: str) -> int:
    """Writes each `<name>.npy` of a folder as `<name>.npz` with `class_ids` (K,), from 1, and `cam` (K, h, w), float32.

    The files are pickles, so a process of its own reads them, which refuses anything but plain arrays.

    Args:
        folder: URI; folders in it are left out.
        out: URI of the folder to write into.

    `cams.json`, with a digest of all, is written last.

    Returns:
        The number of files.

    Raises:
        ValueError: if there is none, or one can't be read; those before it are written.
    """
    prefix = folder.rstrip("/").rsplit("/", 1)[-1]
    uris = [
        uri for uri in storage.list_files(folder, suffix=".npy") if posixpath.basename(posixpath.dirname(uri)) == prefix
    ]
    if not uris:
        raise ValueError(f"no .npy files in {folder}")
    digests = {}
    with _reader() as process:
        for uri in uris:
            content = _convert(process, uri)
            name = f"{without_suffix(posixpath.basename(uri))}.npz"
            digests[name] = storage.bytes_digest(content)
            storage.write_bytes_atomic(storage.join(out, name), content)
    index = {"num_files": len(uris), "digest": storage.digest(digests)}
    storage.write_bytes_atomic(storage.join(out, INDEX_FILE), json.dumps(index, indent=1).encode())
    return len(uris)


def read_cams_digest(folder: str) -> str:
    """Digest of the maps of a folder that `import_cams` wrote.

    Raises:
        ValueError: if it isn't such a folder, or the import wasn't finished.
    """
    uri = storage.join(folder, INDEX_FILE)
    if not storage.exists(uri):
        raise ValueError(f"{folder} has no {INDEX_FILE}: `raypipe import cams FOLDER {folder}` writes such a folder")
    return str(json.loads(storage.read_bytes(uri))["digest"])


@contextmanager
def _reader() -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "raypipe.formats.cams.plain_arrays"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: S603 - our own module
    try:
        yield process
    finally:
        process.kill()
        process.communicate()  # closes the pipes, broken or not


def _convert(process: "subprocess.Popen[bytes]", uri: str) -> bytes:
    assert process.stdin is not None
    assert process.stdout is not None
    data = storage.read_bytes(uri)
    timer = threading.Timer(SECONDS_PER_FILE, process.kill)
    timer.start()
    try:
        process.stdin.write(len(data).to_bytes(8, "big") + data)
        process.stdin.flush()
        head = process.stdout.read(LENGTH.size)
        kind, length = LENGTH.unpack(head) if len(head) == LENGTH.size else (b"", 0)
        content = process.stdout.read(length)
    except BrokenPipeError:
        kind, content = b"", b""
    finally:
        timer.cancel()
    if kind == b"y" and len(content) == length:
        return content
    reason = content.decode() if kind == b"n" else "its reader crashed, ran out of memory, or took too long"
    raise ValueError(f"{uri} can't be read as maps: {reason}")
