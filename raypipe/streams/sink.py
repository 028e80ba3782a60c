"""Writes finished rows as Parquet shards, and rows in error as quarantine shards.

A shard's name is the digest of the ids in it, and a shard appears as a whole or not at all. So a task that is run again
overwrites its own shard with the same bytes, and the ids in the shards ARE the record of what is done: nothing else has
to agree with them after a crash.
"""

import hashlib
import json
from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray
from ray.data import Datasink
from ray.data.block import BlockAccessor

from raypipe import storage
from raypipe.data.names import file_stem
from raypipe.schema import QUARANTINE
from raypipe.streams.budget import BudgetExceeded

SHARDS = "shards"
QUARANTINED = "quarantine"
PNG = "png"

_BYTES_PER_GROUP = 2**20
"""Rows come in groups of about a mebibyte: whoever wants one image of a shard reads that much."""


class ShardSink(Datasink[None]):
    """Sink of a stream.

    Args:
        folder: URI under which `shards/`, `quarantine/` and `png/` come.
        schema: columns of a shard, with metadata.
        rows_per_shard: rows that a shard should have at least.
        png_column: column of PNG bytes that is also written as one file a row; None writes none.
        count: `QuarantineCount` actor that says when too many rows have failed; None never stops.
    """

    def __init__(
        self,
        folder: str,
        schema: pa.Schema,
        *,
        rows_per_shard: int,
        png_column: str | None = None,
        count: Any = None,
    ) -> None:
        self.folder = folder
        self.schema = schema
        self.rows_per_shard = rows_per_shard
        self.png_column = png_column
        self.count = count

    @property
    def min_rows_per_write(self) -> int:
        """Rows that Ray Data gathers for one call of `write`."""
        return self.rows_per_shard

    def write(self, blocks: Iterable[Any], ctx: Any) -> None:  # noqa: ARG002 - the name of a shard depends on its ids alone
        """Writes one shard of finished rows and one of quarantined rows.

        Raises:
            BudgetExceeded: if too many rows of the stream are in quarantine.
        """
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
        quarantined = _quarantine_rows(table.filter(failed))
        name = write_shard(self.folder, QUARANTINED, quarantined)
        write_shard(self.folder, SHARDS, finished.select(self.schema.names).cast(self.schema))
        if self.count is not None and name is not None:
            too_many = ray.get(self.count.add.remote(name, quarantined.num_rows))
            if too_many is not None:
                raise BudgetExceeded(too_many)


def write_shard(folder: str, kind: str, table: pa.Table) -> str | None:
    """Writes rows as one shard; its name, None where there are no rows."""
    if table.num_rows == 0:
        return None
    table = table.sort_by("image_id")
    # Ids may hold any character, so none could stand between them.
    name = hashlib.sha256(json.dumps(table["image_id"].to_pylist()).encode()).hexdigest()[:16]
    buffer = pa.BufferOutputStream()
    rows_per_group = max(1, _BYTES_PER_GROUP * table.num_rows // max(1, table.nbytes))
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, row_group_size=rows_per_group)
    storage.write_bytes_atomic(storage.join(folder, kind, f"{name}.parquet"), buffer.getvalue().to_pybytes())
    return name


def drop_doubled(folder: str) -> None:
    """Leaves each row in one shard; a finished row is dropped from the quarantine.

    Rows are doubled when a writer of an interrupted run ends after the next run has looked at what is done.
    """
    seen: set[str] = set()
    for kind in (SHARDS, QUARANTINED):
        for uri in storage.list_files(storage.join(folder, kind), suffix=".parquet"):
            table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
            new = [image_id not in seen for image_id in table["image_id"].to_pylist()]
            if not all(new):
                write_shard(folder, kind, table.filter(pa.array(new)))
                storage.delete(uri)
            seen.update(table["image_id"].to_pylist())


def png_name(image_id: str) -> str:
    """A PNG file's name for an id of any form."""
    return f"{file_stem(image_id)}.png"


def _quarantine_rows(table: pa.Table) -> pa.Table:
    columns = [table["image_id"], table["error_stage"], table["error_reason"]]
    return pa.table(columns, names=QUARANTINE.names).cast(QUARANTINE)
