"""Finds which rows earlier streams have finished, and where."""

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.shards import iter_shards, read_shards
from raypipe.schema import QUARANTINE, ROW_DIGEST, SHARD_DIGEST, SHARD_URI
from raypipe.stages.base import with_error_columns
from raypipe.streams.sink import QUARANTINED, SHARDS


def locate(rows: pa.Table, outputs: Artifact, *, prefix: str = "") -> pa.Table:
    """Adds the columns `shard_uri` and `shard_digest`: the shard that holds a row's output, and the output's digest.

    Args:
        rows: with an `image_id`.
        outputs: folder of a stream.
        prefix: of the columns' names.

    Returns:
        The rows in the order of their shards; null where there is no output.
    """
    uris: list[str] = []
    image_ids: list[str] = []
    digests: list[str] = []
    for uri, found in iter_shards(storage.join(outputs.uri, SHARDS), columns=["image_id", ROW_DIGEST]):
        image_ids += found["image_id"].to_pylist()
        digests += found[ROW_DIGEST].to_pylist()
        uris += [uri] * len(found)
    position = pc.index_in(rows["image_id"], pa.array(image_ids, pa.string()))
    for name, values in ((SHARD_URI, uris), (SHARD_DIGEST, digests)):
        rows = rows.append_column(prefix + name, pc.take(pa.array(values, pa.string()), position))
    return rows.sort_by([(prefix + SHARD_URI, "ascending"), ("image_id", "ascending")])


def held(rows: pa.Table, outputs: Artifact) -> pa.Table:
    """The rows whose output a stream's folder holds, with the columns of `locate`."""
    rows = locate(rows, outputs)
    return rows.filter(pc.is_valid(rows[SHARD_URI]))


def with_quarantined(rows: pa.Table, outputs: Artifact) -> pa.Table:
    """Puts the rows in error that a stream has quarantined, with its reasons; rows in error stay as they are."""
    quarantine = read_shards(storage.join(outputs.uri, QUARANTINED), schema=QUARANTINE)
    position = pc.index_in(rows["image_id"], quarantine["image_id"].combine_chunks())
    rows = with_error_columns(rows)
    for name, column in (("error_stage", "stage"), ("error_reason", "reason")):
        taken = pc.take(quarantine[column].combine_chunks(), position)
        rows = rows.set_column(rows.column_names.index(name), name, pc.coalesce(rows[name], taken))
    return rows
