"""An object store for fsspec, `sim://`: real contents on the local disk, requests in virtual time.

Shards hold real rows with a payload of a few bytes. The store says that they are as large as their rows would make
them, and whoever reads or writes them waits for that much. All other files are as large as they are.
"""

import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from threading import Lock
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.spec import AbstractBufferedFile, AbstractFileSystem

from simulator.meter import METER

CONNECTIONS = 10
"""Of a process at a time: botocore's default, which s3fs leaves as it is."""
KEYS_A_LIST = 1000
BYTES_A_KEY = 300


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of the store."""

    first_byte: float = 0.025
    """Seconds."""
    stream: float = 80e6
    """Bytes a second of one request."""
    process: float = 250e6
    """Bytes a second of all requests of one process."""
    parquet_write: float = 0.0
    """Seconds a byte of payload that Parquet compresses and checks."""
    parquet_read: float = 0.0

    def seconds(self, number: int, size: int) -> float:
        """That one process waits for so many requests that it makes together."""
        if not number:
            return 0.0
        rounds = -(-number // CONNECTIONS)
        return rounds * self.first_byte + size / min(self.process, self.stream * min(number, CONNECTIONS))


@dataclass
class _Entry:
    number: int
    size: int
    """Bytes that there are."""
    declared: int
    """Bytes that it stands for."""
    is_payload: bool


@dataclass
class _Made:
    """A file that is made when it is read."""

    content: Callable[[], bytes]
    footer: Callable[[], bytes]
    """A file of the same rows, for those who only look into it."""


class Store:
    """The files of a simulation."""

    def __init__(self, speed: Speed, *, row_bytes: Callable[[str], int]) -> None:
        """An empty one.

        Args:
            speed: how fast it is.
            row_bytes: bytes of a row's payload in the shard at a path.
        """
        self.speed, self.row_bytes = speed, row_bytes
        self.folder = Path(tempfile.mkdtemp(prefix="simulator"))
        self.files: dict[str, _Entry | _Made] = {}
        self.children: dict[str, set[str]] = {}
        self._numbers = count()
        self._lock = Lock()  # files are deleted by several threads

    def close(self) -> None:
        """Deletes all."""
        shutil.rmtree(self.folder)

    def make(self, path: str, content: Callable[[], bytes], footer: Callable[[], bytes]) -> None:
        """Adds a file that is made when it is read."""
        self.files[path] = _Made(content, footer)
        self._link(path)

    def write(self, path: str, data: bytes) -> int:
        """Writes a file; returns the bytes that it stands for."""
        is_payload = "/shards/" in path or "/attempts/" in path
        declared = len(data)
        if is_payload:
            declared += pq.read_metadata(pa.BufferReader(data)).num_rows * self.row_bytes(path)
        old = self.files.get(path)
        number = old.number if isinstance(old, _Entry) else next(self._numbers)
        (self.folder / str(number)).write_bytes(data)
        self.files[path] = _Entry(number, len(data), declared, is_payload)
        if old is None:
            self._link(path)
        return declared

    def read(self, path: str) -> bytes:
        """Content of a file."""
        entry = self.files.get(path)
        if entry is None:
            raise FileNotFoundError(path)
        return entry.content() if isinstance(entry, _Made) else (self.folder / str(entry.number)).read_bytes()

    def look(self, path: str) -> bytes:
        """Content of a file of which only the footer matters."""
        entry = self.files.get(path)
        return entry.footer() if isinstance(entry, _Made) else self.read(path)

    def payload(self, path: str) -> int:
        """Bytes that a shard stands for and that aren't there; 0 for other files."""
        entry = self.files.get(path)
        return entry.declared - entry.size if isinstance(entry, _Entry) and entry.is_payload else 0

    def delete(self, path: str) -> None:
        """Deletes a file."""
        with self._lock:
            entry = self.files.pop(path, None)
            if entry is None:
                raise FileNotFoundError(path)
            if isinstance(entry, _Entry):
                (self.folder / str(entry.number)).unlink()
            while path:
                folder, _, name = path.rpartition("/")
                names = self.children[folder]
                names.discard(name)
                if names or not folder:
                    break
                del self.children[folder]
                path = folder

    def below(self, path: str) -> list[str]:
        """All files below a folder, or the file."""
        if path in self.files:
            return [path]
        found: list[str] = []
        folders = [path]
        while folders:
            folder = folders.pop()
            for name in self.children.get(folder, ()):
                child = f"{folder}/{name}"
                (found if child in self.files else folders).append(child)
        return sorted(found)

    def _link(self, path: str) -> None:
        while path:
            folder, _, name = path.rpartition("/")
            names = self.children.setdefault(folder, set())
            if name in names:
                break
            names.add(name)
            path = folder


class SimFileSystem(AbstractFileSystem):
    """Makes a store's requests as s3fs does."""

    protocol = "sim"
    store: Store

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """HEAD."""
        self._wait("HEAD")
        path = self._strip_protocol(path)
        if path not in self.store.files:
            raise FileNotFoundError(path)
        return {"name": path, "size": len(self.store.look(path)), "type": "file"}

    def exists(self, path: str, **_: Any) -> bool:
        """HEAD, and LIST where there is nothing."""
        path = self._strip_protocol(path)
        self._wait("HEAD")
        if path in self.store.files:
            return True
        self._wait("LIST")
        return path in self.store.children

    def find(self, path: str, *, detail: bool = False, **_: Any) -> Any:
        """LIST, a thousand keys at a time."""
        found = self.store.below(self._strip_protocol(path))
        number = max(1, -(-len(found) // KEYS_A_LIST))
        seconds = number * self.store.speed.seconds(1, min(len(found), KEYS_A_LIST) * BYTES_A_KEY)
        METER.request("LIST", seconds=seconds, number=number, size=len(found) * BYTES_A_KEY)
        return {name: {"size": None} for name in found} if detail else found

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        """PUT."""
        path = self._strip_protocol(path)
        if mode == "create" and path in self.store.files:
            self._wait("PUT")
            raise FileExistsError(path)
        declared = self.store.write(path, value)
        cpu = self.store.payload(path) * self.store.speed.parquet_write
        METER.request("PUT", seconds=self.store.speed.seconds(1, declared), size=declared, cpu=cpu)

    def cat_ranges(
        self,
        paths: Sequence[str],
        starts: Sequence[int | None],
        ends: Sequence[int | None],
        on_error: str = "return",
        **_: Any,
    ) -> list[bytes | Exception]:
        """A GET each, some of them at a time. Ranges of a shard are taken for all of its payload."""
        found: list[bytes | Exception] = []
        sizes, cpu = [], 0.0
        ranges = Counter(paths)
        for path, start, end in zip(paths, starts, ends, strict=True):
            payload = self.store.payload(self._strip_protocol(path)) / ranges[path]
            cpu += payload * self.store.speed.parquet_read
            try:
                found.append(self.store.read(self._strip_protocol(path))[start:end])
                sizes.append(len(found[-1]) + int(payload))
            except FileNotFoundError as error:
                if on_error == "raise":
                    raise
                found.append(error)
                sizes.append(0)
        seconds = self.store.speed.seconds(len(sizes), sum(sizes))
        METER.request("GET", seconds=seconds, number=len(sizes), size=sum(sizes), cpu=cpu)
        return found

    def rm_file(self, path: str) -> None:
        """DELETE."""
        self._wait("DELETE")
        self.store.delete(self._strip_protocol(path))

    def _open(self, path: str, mode: str = "rb", **options: Any) -> "SimFile":
        assert mode == "rb"
        return SimFile(self, self._strip_protocol(path), **{k: v for k, v in options.items() if k != "autocommit"})

    def _wait(self, kind: str) -> None:
        METER.request(kind, seconds=self.store.speed.first_byte)


class SimFile(AbstractBufferedFile):
    """An open file, of which ranges are fetched."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        data = self.fs.store.look(self.path)[start:end]
        METER.request("GET", seconds=self.fs.store.speed.seconds(1, len(data)), size=len(data))
        return data


def mount(store: Store) -> None:
    """Makes a store the one that `sim://` is."""
    fsspec.register_implementation("sim", SimFileSystem, clobber=True)
    SimFileSystem.store = store


def parquet_seconds(size: int = 32 * 2**20) -> tuple[float, float]:
    """Seconds a byte that Parquet takes here to write and to read a shard of PNG bytes, as `write_shard` does."""
    row = 2**17
    table = pa.table({"mask": pa.array([os.urandom(row) for _ in range(size // row)], pa.binary())})
    times = [time.process_time()]
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, row_group_size=8)
    content = buffer.getvalue().to_pybytes()
    times.append(time.process_time())
    pq.read_table(pa.BufferReader(content))
    times.append(time.process_time())
    return (times[1] - times[0]) / size, (times[2] - times[1]) / size
