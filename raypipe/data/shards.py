"""Reads folders of Parquet shards."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache
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


class RowReader:
    """Reads rows of shards one by one, and the footer and the ids of each shard once.

    It must not outlive the shards: one that is written anew under its name would be read by the footer of the old one.
    """

    def __init__(self, *, num_shards: int = 4096) -> None:
        self._contents = lru_cache(num_shards)(_read_contents)

    def read(self, uri: str, image_id: str, *, columns: Sequence[str]) -> dict[str, Any]:
        """Reads columns of one image in a shard, and nothing but the rows around it.

        Raises:
            ShardError: as for `read_shard`; or the image isn't in the shard.
        """
        contents = self._contents(uri)
        if missing := [name for name in columns if name not in contents.columns]:
            raise ShardError(f"{uri} lacks columns {missing}; it has {contents.columns}: {WAY_OUT}")
        if image_id not in contents.places:
            raise ShardError(f"{uri} has no row {image_id!r}: {WAY_OUT}")
        group, index = contents.places[image_id]
        with _opened(uri, metadata=contents.footer) as parquet:
            row: dict[str, Any] = parquet.read_row_group(group, columns=list(columns)).slice(index, 1).to_pylist()[0]
        return row


class _Contents(NamedTuple):
    """What a shard holds, and where."""

    footer: pq.FileMetaData
    columns: list[str]
    places: dict[str, tuple[int, int]]
    """Group of rows, and number in it, by image id."""


def _read_contents(uri: str) -> _Contents:
    with _opened(uri) as parquet:
        ids = iter(parquet.read(columns=["image_id"])["image_id"].to_pylist())
        sizes = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
        places = {next(ids): (group, index) for group, size in enumerate(sizes) for index in range(size)}
        return _Contents(parquet.metadata, parquet.schema_arrow.names, places)


@contextmanager
def _opened(uri: str, **options: Any) -> Iterator[pq.ParquetFile]:
    """A shard of which only what is asked for is fetched; damage is a ShardError."""
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb", cache_type="none") as file:
            yield pq.ParquetFile(file, page_checksum_verification=True, **options)
    except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
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
    except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
        raise damaged(uri, error) from error
    missing = [name for name in columns if name not in present]
    raise ShardError(f"{uri} lacks columns {missing}; it has {present}: {WAY_OUT}")


def damaged(uri: str, error: Exception) -> ShardError:
    """Says that a shard can't be read."""
    return ShardError(f"{uri} can't be read ({error}): if it is damaged, {WAY_OUT}")
