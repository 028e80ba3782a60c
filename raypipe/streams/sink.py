"""Writes finished rows as Parquet shards, and rows in error as quarantine shards.

A shard's name is the digest of the ids in it, and a shard appears as a whole or not at all. So a task that is run again
overwrites its own shard with the same bytes, and the ids in the shards ARE the record of what is done: nothing else has
to agree with them after a crash.
"""

import hashlib
import json
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.names import file_stem
from raypipe.schema import QUARANTINE, ROW_DIGEST

SHARDS = "shards"
QUARANTINED = "quarantine"
PNG = "png"

_BYTES_PER_GROUP = 2**20
"""Rows come in groups of about a mebibyte: whoever wants one image of a shard reads that much."""


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes the rows that come out of a stream."""

    folder: str
    """URI under which `shards/`, `quarantine/` and `png/` come."""
    schema: pa.Schema
    """Columns of a shard, with metadata."""
    png_column: str | None = None
    """Column of PNG bytes that is also written as one file a row; None writes none."""

    def write(self, table: pa.Table) -> pa.Table:
        """Writes one shard of finished rows and one of quarantined rows; returns how many there are of each."""
        failed = pc.is_valid(table["error_stage"])
        finished = table.filter(pc.invert(failed))
        if self.png_column is not None:
            for image_id, png in zip(finished["image_id"], finished[self.png_column], strict=True):
                storage.write_bytes_atomic(storage.join(self.folder, PNG, png_name(image_id.as_py())), png.as_py())
        quarantined = table.filter(failed)
        columns = [quarantined[name] for name in ("image_id", "error_stage", "error_reason", ROW_DIGEST)]
        write_shard(self.folder, QUARANTINED, pa.table(columns, names=QUARANTINE.names).cast(QUARANTINE))
        write_shard(self.folder, SHARDS, finished.select(self.schema.names).cast(self.schema))
        return pa.table({"num_finished": [finished.num_rows], "num_quarantined": [quarantined.num_rows]})


def write_shard(folder: str, kind: str, table: pa.Table) -> str | None:
    """Writes rows as one shard; its URI, None where there are no rows."""
    if table.num_rows == 0:
        return None
    table = table.sort_by("image_id")
    # Ids may hold any character, so none could stand between them.
    name = hashlib.sha256(json.dumps(table["image_id"].to_pylist()).encode()).hexdigest()[:16]
    buffer = pa.BufferOutputStream()
    rows_per_group = max(1, _BYTES_PER_GROUP * table.num_rows // max(1, table.nbytes))
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, row_group_size=rows_per_group)
    uri = storage.join(folder, kind, f"{name}.parquet")
    storage.write_bytes_atomic(uri, buffer.getvalue().to_pybytes())
    return uri


def drop_rows(folder: str, wanted: dict[str, str]) -> None:
    """Leaves one output of each row, that of the row as it is now; a finished row is dropped from the quarantine.

    A row has several outputs where the manifest has changed it, and where a writer of an interrupted run ends after the
    next run has looked at what is done.

    Args:
        folder: URI of the stream's outputs.
        wanted: image id to the digest of the row as it is now. Outputs of other images stay as they are.
    """
    seen: set[str] = set()
    for kind in (SHARDS, QUARANTINED):
        for uri in storage.list_files(storage.join(folder, kind), suffix=".parquet"):
            table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
            pairs = zip(table["image_id"].to_pylist(), table[ROW_DIGEST].to_pylist(), strict=True)
            good = [wanted.get(name, found) == found and name not in seen for name, found in pairs]
            if not all(good) and write_shard(folder, kind, table.filter(pa.array(good))) != uri:
                storage.delete(uri)
            seen.update(table["image_id"].filter(pa.array(good)).to_pylist())


def png_name(image_id: str) -> str:
    """A PNG file's name for an id of any form."""
    return f"{file_stem(image_id)}.png"
