"""Takes up what an earlier stream has written, row by row."""

from typing import Any, ClassVar

import pyarrow as pa

from raypipe.data.images import decode_mask, encode_png, resize_labels
from raypipe.data.shards import read_row, read_shard
from raypipe.schema import GATED_WALKS, MASKS, SEEDS
from raypipe.stages.base import Row, Stage


class LoadFromShard(Stage):
    """Columns `writes` of the row's shard.

    The last shard stays in memory: rows come in the order of their shards, so that each is read about once.
    """

    reads: ClassVar[tuple[str, ...]] = ("image_id", "shard_uri")
    drops: ClassVar[tuple[str, ...]] = ("shard_uri",)

    def __init__(self) -> None:
        self._uri: str | None = None
        self._rows: dict[str, dict[str, Any]] = {}

    def process(self, row: Row) -> Row:
        """Finds the row in its shard.

        Raises:
            ValueError: if it isn't there, or the shard is damaged.
        """
        if row["shard_uri"] != self._uri:
            table = read_shard(row["shard_uri"], columns=["image_id", *self.writes.names])
            self._rows = {found.pop("image_id"): found for found in table.to_pylist()}
            self._uri = row["shard_uri"]
        if row["image_id"] not in self._rows:
            raise ValueError(f"{row['shard_uri']} has no row {row['image_id']!r}; delete the shard to compute it again")
        return self._rows[row["image_id"]]


def _columns(schema: pa.Schema, *names: str) -> pa.Schema:
    return pa.schema([schema.field(name) for name in names])


class LoadCams(LoadFromShard):
    """Class activation maps of a seed shard: the same columns as `ComputeCams` writes."""

    writes = _columns(SEEDS, "cam", "cam_height", "cam_width")


class LoadSeeds(LoadFromShard):
    """Class activation maps, class ids and working size of a seed shard."""

    writes = _columns(SEEDS, "height", "width", "class_ids", "cam", "cam_height", "cam_width")


class LoadScores(LoadFromShard):
    """Walked scores of a gate's shard: the columns of `PropagateCams` that masks are made of."""

    writes = _columns(GATED_WALKS, "scores", "grid_height", "grid_width")


class LoadMasks(LoadFromShard):
    """Masks of a mask shard, final and before refinement."""

    writes = _columns(MASKS, "mask", "walk_mask")


class LoadMaskPair(Stage):
    """Masks of two mask shards at the working size: the earlier ones as `walk_mask`, the later ones as `mask`."""

    reads = ("image_id", "before_uri", "shard_uri", "height", "width")
    writes = _columns(MASKS, "mask", "walk_mask")
    drops = ("before_uri", "shard_uri")

    def process(self, row: Row) -> Row:
        """Reads both.

        Raises:
            ValueError: if a shard is damaged, or the row isn't in it.
        """
        masks = {}
        for name, uri in (("walk_mask", row["before_uri"]), ("mask", row["shard_uri"])):
            found = read_row(uri, row["image_id"], columns=["mask"])["mask"]
            masks[name] = encode_png(resize_labels(decode_mask(found), (row["height"], row["width"])))
        return masks


class LoadConfidences(LoadFromShard):
    """Final masks of a mask shard with their confidence."""

    writes = _columns(MASKS, "mask", "confidence")


class LoadMaskRows(LoadFromShard):
    """Everything that a mask shard has of an image."""

    writes = _columns(MASKS, *(name for name in MASKS.names if name != "image_id"))
