"""Folders of outputs that tests write themselves, as a stream would."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from raypipe.artifacts import Artifact
from raypipe.data.images import decode_mask
from raypipe.data.rows import ONLY_PART
from raypipe.outputs.ledger import INDEX, QUARANTINED, SHARDS, write_entries
from raypipe.outputs.sink import write_shard
from raypipe.schema import MASKS, QUARANTINE, ROW_DIGEST


def write_outputs(
    folder: str,
    schema: pa.Schema,
    rows: Sequence[dict[str, Any]],
    *,
    digest: str = "o",
    part: str = ONLY_PART,
    rows_per_shard: int = 10,
    made_of: str = "of",
) -> Artifact:
    """Writes finished rows of one part; columns that are left out are null.

    Args:
        folder: URI of the stream's outputs.
        schema: of the rows, without the digest of the row that each was made of.
        rows: with an `image_id` each.
        digest: of the folder.
        part: of the manifest.
        rows_per_shard: so many shards there are.
        made_of: what the row's digest says, before the id.
    """
    with_digest = schema.append(pa.field(ROW_DIGEST, pa.string()))
    for start in range(0, len(rows), rows_per_shard):
        some = [
            size_of(row) | row | {ROW_DIGEST: f"{made_of} {row['image_id']}"}
            for row in rows[start : start + rows_per_shard]
        ]
        entries = write_shard(folder, SHARDS, part, pa.Table.from_pylist(some, schema=with_digest))
        write_entries(folder, INDEX, part, entries, run=1)
    return Artifact(folder, digest)


def size_of(row: dict[str, Any]) -> dict[str, int]:
    """`height` and `width` of a row with a mask, which a stream always writes."""
    if row.get("mask") is None:
        return {}
    height, width = decode_mask(row["mask"]).shape
    return {"height": height, "width": width}


def write_quarantine(folder: str, reasons: Mapping[str, tuple[str, str]], *, part: str = ONLY_PART) -> None:
    """Writes rows that couldn't be processed: stage and reason by the image's id."""
    rows = [
        {"image_id": name, "stage": stage, "reason": reason, ROW_DIGEST: f"of {name}"}
        for name, (stage, reason) in reasons.items()
    ]
    write_entries(folder, QUARANTINED, part, pa.Table.from_pylist(rows, schema=QUARANTINE), run=1)


def write_masks(folder: str, rows: Sequence[dict[str, Any]], *, rows_per_shard: int = 10) -> Artifact:
    """Writes rows of `schema.MASKS`; columns that are left out are null."""
    return write_outputs(folder, MASKS, rows, digest="m", rows_per_shard=rows_per_shard)
