"""Takes up what an earlier stream has written, row by row."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from raypipe.artifacts import Artifact
from raypipe.data.shards import read_row, read_rows
from raypipe.schema import MASKS, SEEDS, SHARD_DIGEST, SHARD_URI, columns
from raypipe.stages.base import ROW_ERRORS, Row, Stage


@dataclass(kw_only=True)
class LoadFromShard(Stage):
    """Columns `writes` of the row in the shard that holds it; null where no shard does and none needs to.

    The digest of that row is read, too, so that whatever is made of it is made again when it changes.
    """

    reads: ClassVar[tuple[str, ...]] = ("image_id", SHARD_URI, SHARD_DIGEST)
    prefix: ClassVar[str] = ""
    """Of the columns that name the shard, where a row takes up the outputs of two streams."""
    optional: ClassVar[bool] = False
    """A row that no shard holds isn't an error."""
    kind = "fetch"

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Reads each shard once for all rows that it holds."""
        column = self.prefix + SHARD_URI
        wanted: dict[str, list[str]] = {}
        for row in rows:
            if row.get("error_stage") is None and row[column] is not None:
                wanted.setdefault(row[column], []).append(row["image_id"])
        found: dict[str, dict[str, Row] | Exception] = {}
        for uri, image_ids in wanted.items():
            try:
                found[uri] = read_rows(uri, image_ids, columns=self.writes.names)
            except ROW_ERRORS as error:
                found[uri] = error
        return super().process_all([row | {"shard": found.get(row[column], {})} for row in rows])

    def process(self, row: Row) -> Row:
        """Finds the row in its shard.

        Raises:
            ValueError: if it isn't there, or the shard is damaged.
        """
        uri: str | None = row[self.prefix + SHARD_URI]
        shard: dict[str, Row] | Exception = row.pop("shard")
        if isinstance(shard, Exception):
            raise shard
        if uri is None and self.optional:
            return dict.fromkeys(self.writes.names)
        if row["image_id"] not in shard:
            raise ValueError(f"{uri} has no row {row['image_id']!r}; delete the shard to compute it again")
        return shard[row["image_id"]]


@dataclass(kw_only=True)
class LoadCams(LoadFromShard):
    """Class activation maps of a seed shard, in the place of the stage that has made them."""

    reads = ("image_id", SHARD_URI)
    writes = columns(SEEDS, "cam", "cam_height", "cam_width")


@dataclass(kw_only=True)
class LoadSeeds(LoadFromShard):
    """Class activation maps, class ids and working size of a seed shard."""

    seeds: Artifact

    prefix = "seeds_"
    optional = True
    reads = ("image_id", f"seeds_{SHARD_URI}", f"seeds_{SHARD_DIGEST}")
    writes = columns(SEEDS, "height", "width", "class_ids", "cam", "cam_height", "cam_width")


@dataclass(kw_only=True)
class LoadMasks(LoadFromShard):
    """Masks of a mask shard, final and before refinement."""

    masks: Artifact

    optional = True
    writes = columns(MASKS, "mask", "walk_mask")


@dataclass(kw_only=True)
class LoadMaskPair(Stage):
    """Masks of two mask shards: the earlier one as `walk_mask`, the later one as `mask`, with its other columns."""

    before: Artifact
    after: Artifact

    reads = ("image_id", *(f"{prefix}{name}" for prefix in ("before_", "") for name in (SHARD_URI, SHARD_DIGEST)))
    writes = columns(MASKS, "mask", "walk_mask", "confidence", "areas", "mean_confidences")
    kind = "fetch"

    def process(self, row: Row) -> Row:
        """Reads both.

        Raises:
            ValueError: if a shard is damaged, or the row isn't in it.
        """
        names = [name for name in self.writes.names if name != "walk_mask"]
        before = read_row(row[f"before_{SHARD_URI}"], row["image_id"], columns=["mask"])
        return read_row(row[SHARD_URI], row["image_id"], columns=names) | {"walk_mask": before["mask"]}


@dataclass(kw_only=True)
class LoadConfidences(LoadFromShard):
    """Final masks of a mask shard with their confidence."""

    masks: Artifact

    writes = columns(MASKS, "mask", "confidence")


@dataclass(kw_only=True)
class LoadMaskRows(LoadFromShard):
    """Everything that a mask shard has of an image."""

    masks: Artifact

    writes = columns(MASKS, *(name for name in MASKS.names if name != "image_id"))
