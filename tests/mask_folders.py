"""Folders of masks that tests write themselves, as a stream would."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from raypipe.artifacts import Artifact
from raypipe.schema import MASKS, ROW_DIGEST
from raypipe.streams.sink import SHARDS, write_shard


def write_masks(folder: str, rows: Sequence[dict[str, Any]], *, rows_per_shard: int = 10) -> Artifact:
    """Writes rows of `schema.MASKS`; columns that are left out are null."""
    schema = MASKS.append(pa.field(ROW_DIGEST, pa.string()))
    for start in range(0, len(rows), rows_per_shard):
        some = [row | {ROW_DIGEST: f"of {row['image_id']}"} for row in rows[start : start + rows_per_shard]]
        write_shard(folder, SHARDS, pa.Table.from_pylist(some, schema=schema))
    return Artifact(folder, "m")
