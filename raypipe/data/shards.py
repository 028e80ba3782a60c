"""Reads folders of Parquet shards."""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate
from threading import Lock
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage

_NUM_THREADS = 16

WAY_OUT = "delete it, and the same command computes its rows again"


class ShardError(ValueError):
    """A shard is damaged, or lacks what it should hold."""


def read_shard(uri: str, *, columns: Sequence[str]) -> pa.Table:
    """Reads columns of one shard.

    Raises:
        ShardError: the shard is damaged or lacks a column.
    """
    return _read(pa.BufferReader(storage.read_bytes(uri)), uri, columns)


def read_shards(folder: str, *, columns: Sequence[str] | None = None, schema: pa.Schema) -> pa.Table:
    """Reads all rows of a folder's shards, in the order of `image_id`; without shards, an empty table of `schema`.

    Args:
        folder: URI of the folder.
        columns: columns to read; None reads all of `schema`.
        schema: the shards' schema.

    Raises:
        ShardError: as for `read_shard`.
    """
    names = list(columns or schema.names)
    # Each shard of an object store takes a few round trips; many at a time take as long as one.
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        tables = list(threads.map(lambda uri: _read_columns(uri, names), storage.list_files(folder, suffix=".parquet")))
    if not tables:
        return pa.schema([schema.field(name) for name in names]).empty_table()
    return pa.concat_tables(tables).sort_by("image_id")


class Place(NamedTuple):
    """Where a row is."""

    uri: str
    """Of the shard."""
    row: int
    """Its number in the shard, from 0."""


class RowReader:
    """Reads rows of shards one by one, and keeps the footers of the shards that it has read from last.

    It must not outlive the shards: one that is written anew under its name would be read by the footer of the old one.

    Args:
        max_bytes: memory that footers may take, by an estimate. One takes some 50 kB, of a shard of 64 MB 400 kB.
    """

    def __init__(self, *, max_bytes: int = 2**26) -> None:
        self._contents: OrderedDict[str, _Contents] = OrderedDict()
        self._num_bytes, self._max_bytes = 0, max_bytes
        self._lock = Lock()

    def read(self, place: Place, *, columns: Sequence[str]) -> dict[str, Any]:
        """Reads columns of one image in a shard, and nothing but the rows around it.

        Raises:
            ShardError: as for `read_shard`; or the shard has no such row.
        """
        uri, number = place
        contents = self._find(uri)
        names = contents.footer.schema.to_arrow_schema().names
        if missing := [name for name in columns if name not in names]:
            raise ShardError(f"{uri} lacks columns {missing}; it has {names}: {WAY_OUT}")
        if not 0 <= number < contents.ends[-1]:
            raise ShardError(f"{uri} has no row {number}: {WAY_OUT}")
        with _opened(uri, metadata=contents.footer) as parquet:
            group = bisect_right(contents.ends, number)
            index = number - (contents.ends[group - 1] if group else 0)
            row: dict[str, Any] = parquet.read_row_group(group, columns=list(columns)).slice(index, 1).to_pylist()[0]
        return row

    def read_many(
        self, places: Collection[Place], *, columns: Sequence[str]
    ) -> dict[Place, dict[str, Any] | Exception]:
        """Reads columns of many images at once: each one's, or the error of `read`."""

        def read(place: Place) -> dict[str, Any] | Exception:
            try:
                return self.read(place, columns=columns)
            except Exception as error:  # noqa: BLE001 - whoever wants the row raises it
                return error

        if not places:
            return {}
        with ThreadPoolExecutor(min(_NUM_THREADS, len(places))) as threads:
            return dict(zip(places, threads.map(read, places), strict=True))

    def _find(self, uri: str) -> "_Contents":
        with self._lock:
            if uri in self._contents:
                self._contents.move_to_end(uri)
                return self._contents[uri]
        contents = _read_contents(uri)  # two threads may read the same
        with self._lock:
            if uri not in self._contents:
                self._contents[uri] = contents
                self._num_bytes += contents.num_bytes
            while self._num_bytes > self._max_bytes and len(self._contents) > 1:
                self._num_bytes -= self._contents.popitem(last=False)[1].num_bytes
        return contents


class _Contents(NamedTuple):
    """What a shard holds, and where."""

    footer: pq.FileMetaData
    ends: list[int]
    """Number of the first row after each group of rows."""

    @property
    def num_bytes(self) -> int:
        """Estimated: Arrow's form of a footer was measured to take 1.5 to 2.8 times the bytes of the file's."""
        return 3 * int(self.footer.serialized_size)


def _read_contents(uri: str) -> _Contents:
    with _opened(uri) as parquet:
        footer = parquet.metadata
        sizes = (footer.row_group(group).num_rows for group in range(footer.num_row_groups))
        return _Contents(footer, list(accumulate(sizes)))


@contextmanager
def _opened(uri: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """A shard of which only what is asked for is fetched; damage is a ShardError."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb", cache_type="none") as file:
            yield pq.ParquetFile(file, page_checksum_verification=True, **options)
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        raise damaged(uri, error) from error


def _read_columns(uri: str, columns: Sequence[str], **options: Any) -> pa.Table:
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb", **options) as file:
        return _read(file, uri, columns)


def iter_shards(folder: str, *, columns: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Yields the URI and the named columns of one shard after another; an absent folder has no shards.

    Raises:
        ShardError: as for `read_shard`.
    """
    uris = storage.list_files(folder, suffix=".parquet")
    # Few at a time, because the columns of all shards may not fit into memory.
    for start in range(0, len(uris), _NUM_THREADS):
        some = uris[start : start + _NUM_THREADS]
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            # Only these columns are fetched: small ones are a few bytes of a shard.
            tables = threads.map(lambda uri: _read_columns(uri, columns, cache_type="none"), some)
            yield from zip(some, tables, strict=True)


def _read(file: Any, uri: str, columns: Sequence[str]) -> pa.Table:
    try:
        parquet = pq.ParquetFile(file, page_checksum_verification=True)
        present = parquet.schema_arrow.names
        if all(name in present for name in columns):
            return parquet.read(columns=list(columns)).replace_schema_metadata(None)
    except (pa.ArrowException, OSError) as error:
        if not is_damage(error):
            raise
        raise damaged(uri, error) from error
    missing = [name for name in columns if name not in present]
    raise ShardError(f"{uri} lacks columns {missing}; it has {present}: {WAY_OUT}")


def damaged(uri: str, error: Exception) -> ShardError:
    """Says that a shard can't be read."""
    return ShardError(f"{uri} can't be read ({error}): if it is damaged, {WAY_OUT}")


def is_damage(error: Exception) -> bool:
    """False for what storage says by itself: a file is missing, a connection is lost.

    Arrow reports a page that can't be decompressed as an OSError without a number.
    """
    return not isinstance(error, OSError) or (type(error) is OSError and error.errno is None)
