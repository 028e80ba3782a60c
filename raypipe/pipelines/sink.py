"""Writes finished rows as Parquet shards, and rows in error as quarantine shards.

A shard's name is the digest of the ids in it, and a shard appears as a whole or not at all. So a task that is run again
overwrites its own shard with the same bytes, and the ids in the shards ARE the record of what is done: nothing else has
to agree with them after a crash.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ray.data import Datasink
from ray.data.block import BlockAccessor

from raypipe import storage
from raypipe.schema import QUARANTINE

SHARDS = "shards"
QUARANTINED = "quarantine"
PNG = "png"


class ShardSink(Datasink[None]):
    """Sink of a stream.

    Args:
        folder: URI under which `shards/`, `quarantine/` and `png/` come.
        schema: columns of a shard, with metadata.
        rows_per_shard: rows that a shard should have at least.
        png_column: column of PNG bytes that is also written as one file a row; None writes none.
    """

    def __init__(self, folder: str, schema: pa.Schema, *, rows_per_shard: int, png_column: str | None = None) -> None:
        self.folder = folder
        self.schema = schema
        self.rows_per_shard = rows_per_shard
        self.png_column = png_column

    @property
    def min_rows_per_write(self) -> int:
        """Rows that Ray Data gathers for one call of `write`."""
        return self.rows_per_shard

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:  # noqa: ARG002 - the name of a shard depends on its ids alone
        """Writes one shard of finished rows and one of quarantined rows."""
        tables = [BlockAccessor.for_block(block).to_arrow() for block in blocks]
        tables = [table for table in tables if table.num_rows]
        if not tables:
            return
        table = pa.concat_tables(tables, promote_options="default")
        failed = pa.compute.is_valid(table["error_stage"])
        finished = table.filter(pa.compute.invert(failed))
        if self.png_column is not None:
            for image_id, png in zip(finished["image_id"], finished[self.png_column], strict=True):
                storage.write_bytes_atomic(storage.join(self.folder, PNG, png_name(image_id.as_py())), png.as_py())
        self._write_shard(QUARANTINED, _quarantine_rows(table.filter(failed)))
        self._write_shard(SHARDS, finished.select(self.schema.names).cast(self.schema))

    def _write_shard(self, kind: str, table: pa.Table) -> None:
        if table.num_rows == 0:
            return
        table = table.sort_by("image_id")
        # Ids may hold any character, so none could stand between them.
        name = hashlib.sha256(json.dumps(table["image_id"].to_pylist()).encode()).hexdigest()[:16]
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd", write_page_checksum=True)
        storage.write_bytes_atomic(storage.join(self.folder, kind, f"{name}.parquet"), buffer.getvalue().to_pybytes())


def png_name(image_id: str) -> str:
    """A file name for an id of any form: `<id>.png` where that is safe, else the safe part of it and a digest.

    Never leaves its folder, never meets another id's name.
    """
    if re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}", image_id):
        return f"{image_id}.png"
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", image_id).strip("-")[:60]
    return f"{safe}~{hashlib.sha256(image_id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}.png"


def _quarantine_rows(table: pa.Table) -> pa.Table:
    columns = [table["image_id"], table["error_stage"], table["error_reason"]]
    return pa.table(columns, names=QUARANTINE.names).cast(QUARANTINE)
