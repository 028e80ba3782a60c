"""Writes finished rows as Parquet shards, and rows in error as quarantine.

A shard appears as a whole or not at all, under a name that is the digest of the rows in it. So a task that is run again
overwrites its own shard with the same bytes.
"""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.names import file_stem
from raypipe.outputs.ledger import ATTEMPTS, ENTRIES, INDEX, QUARANTINED, write_entries
from raypipe.schema import QUARANTINE, ROW_DIGEST

PNG = "png"

PART, PART_TODO = "part", "part_todo"
"""Columns of rows on their way through a stream: the part of the manifest, and how many of its rows are on the way."""

WRITTEN = pa.schema(
    {
        PART: pa.string(),
        PART_TODO: pa.int64(),
        "num_finished": pa.int64(),
        "num_quarantined": pa.int64(),
        INDEX: pa.string(),
        QUARANTINED: pa.string(),
    }
)
"""What a writer says of the rows of one part that it has written. `index`, `quarantine`: URI of what it added there."""

_BYTES_PER_GROUP = 2**20
"""Rows come in groups of about a mebibyte: whoever wants one image of a shard reads that much."""


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes the rows that come out of a stream."""

    folder: str
    """URI of the stream's outputs."""
    schema: pa.Schema
    """Columns of a shard, with metadata."""
    run: int
    """Number of the run."""
    png_column: str | None = None
    """Column of PNG bytes that is also written as one file a row; None writes none."""

    @property
    def stream(self) -> str:
        """The stream's name, of which its folder's parent has its own."""
        return self.folder.rstrip("/").split("/")[-2]

    def write(self, table: pa.Table) -> pa.Table:
        """Writes rows of one part or several; returns a row a part, with the columns of `WRITTEN`."""
        parts = pc.unique(table[PART]).to_pylist()
        rows = [self._write(name, table.filter(pc.equal(table[PART], name))) for name in parts]
        return pa.Table.from_pylist(rows, schema=WRITTEN)

    def _write(self, part: str, table: pa.Table) -> dict[str, Any]:
        failed = pc.is_valid(table["error_stage"])
        finished, quarantined = table.filter(pc.invert(failed)), table.filter(failed)
        if self.png_column is not None:
            for image_id, png in zip(finished["image_id"], finished[self.png_column], strict=True):
                storage.write_bytes_atomic(storage.join(self.folder, PNG, png_name(image_id.as_py())), png.as_py())
        columns = [quarantined[name] for name in ("image_id", "error_stage", "error_reason", ROW_DIGEST)]
        reasons = pa.table(columns, names=QUARANTINE.names)
        entries = write_shard(self.folder, ATTEMPTS, part, finished.select(self.schema.names).cast(self.schema))
        return {
            PART: part,
            PART_TODO: table[PART_TODO][0].as_py(),
            "num_finished": finished.num_rows,
            "num_quarantined": quarantined.num_rows,
            INDEX: write_entries(self.folder, INDEX, part, entries, run=self.run),
            QUARANTINED: write_entries(self.folder, QUARANTINED, part, reasons, run=self.run),
        }


def write_shard(folder: str, kind: str, part: str, table: pa.Table) -> pa.Table:
    """Writes rows as one shard, in the order of their ids.

    Args:
        folder: URI of the stream's outputs.
        kind: `SHARDS` or `ATTEMPTS`.
        part: name of the part of the manifest.
        table: rows with an `image_id` and a `ROW_DIGEST`; none write nothing.

    Returns:
        Where the rows are, with the columns of `ledger.ENTRIES`.
    """
    if table.num_rows == 0:
        return ENTRIES.empty_table()
    table = table.sort_by("image_id")
    # Ids may hold any character, so none could stand between them.
    rows = json.dumps([table["image_id"].to_pylist(), table[ROW_DIGEST].to_pylist()])
    shard = f"{kind}/{part}/{hashlib.sha256(rows.encode()).hexdigest()[:16]}.parquet"
    buffer = pa.BufferOutputStream()
    rows_per_group = max(1, _BYTES_PER_GROUP * table.num_rows // max(1, table.nbytes))
    pq.write_table(table, buffer, compression="zstd", write_page_checksum=True, row_group_size=rows_per_group)
    content = buffer.getvalue().to_pybytes()
    storage.write_bytes_atomic(storage.join(folder, shard), content)
    columns = {
        "image_id": table["image_id"],
        ROW_DIGEST: table[ROW_DIGEST],
        "shard": pa.DictionaryArray.from_arrays(pa.array([0] * table.num_rows, pa.int32()), pa.array([shard])),
        "row": pa.array(range(table.num_rows), pa.int32()),
        "size": pa.array([len(content)] * table.num_rows, pa.int64()),
    }
    return pa.table(columns).cast(ENTRIES)


def png_name(image_id: str) -> str:
    """A PNG file's name for an id of any form."""
    return f"{file_stem(image_id)}.png"
