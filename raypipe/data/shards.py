"""Reads folders of Parquet shards."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from raypipe import storage

_NUM_THREADS = 16


def read_shards(folder: str, *, columns: Sequence[str] | None = None, schema: pa.Schema) -> pa.Table:
    """All rows of a folder's shards, in the order of `image_id`; an empty table of `schema` if there are none.

    Args:
        folder: URI.
        columns: those to read; None reads all of `schema`.
        schema: the shards' schema.

    Raises:
        ValueError: if a shard lacks a column, naming the shard.
    """
    names = list(columns or schema.names)
    # From an object store each shard is a few round trips: side by side they take as long as one.
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        tables = list(threads.map(lambda uri: _read(uri, names), storage.list_files(folder, suffix=".parquet")))
    if not tables:
        return pa.schema([schema.field(name) for name in names]).empty_table()
    return pa.concat_tables(tables).sort_by("image_id")


def _read(uri: str, names: list[str]) -> pa.Table:
    fs, path = storage.filesystem(uri)
    with fs.open(path, "rb") as file:
        parquet = pq.ParquetFile(file)
        missing = [name for name in names if name not in parquet.schema_arrow.names]
        if missing:
            raise ValueError(f"{uri} lacks columns {missing}; it has {parquet.schema_arrow.names}")
        return parquet.read(columns=names).replace_schema_metadata(None)


def read_rows(folder: str, image_ids: Sequence[str], *, schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """The rows of a few images, by id; ids that aren't there are left out."""
    if not storage.exists(folder):
        return {}
    fs, path = storage.arrow_filesystem(folder)
    dataset = pa.dataset.dataset(path, filesystem=fs, schema=schema, format="parquet")
    table = dataset.to_table(filter=pa.dataset.field("image_id").isin(list(image_ids)))
    return {row["image_id"]: row for row in table.to_pylist()}
