"""Takes up what an earlier stream has written: a part's rows in the order of its shards, each shard read once.

The earlier stream's ledger says where a row's output is. Reading belongs to the source of a stream, not to a pool: only
so is a shard read once, however many processes share its rows.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.artifacts import NOT_IN_DIGEST, Artifact
from raypipe.data.blocks import cut
from raypipe.data.rows import ONLY_PART, Part, Rows
from raypipe.data.shards import WAY_OUT, ShardError, damaged
from raypipe.outputs.ledger import Catalogue, Ledger
from raypipe.schema import ROW_DIGEST, SHARD_DIGEST, SHARD_ROW, SHARD_URI
from raypipe.stages.base import with_error_columns

_SHARDS_KEPT = 4
"""Of each load: a second load's shards are cut elsewhere than the first one's, by which rows are ordered."""

_MOST_WASTE = 0.2
"""Bytes between wanted columns that are fetched with them to save requests, as a share of the wanted ones."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Columns that a stream takes from the outputs of another one.

    A row is left out of the stream where no load finds it, or one that isn't optional doesn't.
    """

    outputs: Artifact
    """Folder of the earlier stream."""
    columns: pa.Schema
    """That are loaded, named as in the outputs."""
    names: tuple[str, ...] = ()
    """What they are called here; empty calls them the same."""
    prefix: str = ""
    """Of the columns that say where a row is, where a stream loads from two folders."""
    optional: bool = False
    """Rows that aren't there have nulls."""
    imported: bool = field(default=False, metadata=NOT_IN_DIGEST)
    """An import has written the folder, of images and not of a manifest's parts: what it holds lies under `ONLY_PART`,
    what it has left out is in error, and no row is left out of the stream."""
    part_of_plan: bool = field(default=True, metadata=NOT_IN_DIGEST)
    """What is loaded is known by the digest of its row; false where the plan's own stages would make the same."""

    @property
    def writes(self) -> list[str]:
        """Names of the columns here."""
        return list(self.names or self.columns.names)

    def ledger(self, part: Part, catalogue: Catalogue) -> Ledger:
        """What the folder holds for the rows of a part."""
        return catalogue.read(ONLY_PART if self.imported else part.name)


def with_places(table: pa.Table, ledger: Ledger, outputs: Artifact, *, prefix: str = "") -> pa.Table:
    """Adds `shard_uri`, `shard_row` and `shard_digest` of each row's output; null where there is none."""
    entries = ledger.finished
    position = pc.index_in(table["image_id"], entries["image_id"].combine_chunks())
    shards = entries["shard"].combine_chunks()
    if isinstance(shards, pa.ChunkedArray):
        shards = pa.concat_arrays(shards.chunks) if shards.num_chunks else pa.array([], shards.type)
    uris = pa.array([storage.join(outputs.uri, name) for name in shards.dictionary.to_pylist()], pa.string())
    table = table.append_column(prefix + SHARD_URI, uris.take(shards.indices.take(position)))
    table = table.append_column(prefix + SHARD_ROW, pc.take(entries["row"].combine_chunks(), position))
    return table.append_column(prefix + SHARD_DIGEST, pc.take(entries[ROW_DIGEST].combine_chunks(), position))


def held(rows: Rows, outputs: Artifact, *, prefix: str = "", optional: bool = False) -> Rows:
    """The rows whose output a stream's folder holds, with the columns of `with_places`.

    Args:
        rows: of a manifest.
        outputs: folder of the stream.
        prefix: of the columns' names.
        optional: keeps the other rows, too, with nulls.
    """
    catalogue = Catalogue.of(outputs.uri)

    def find(table: pa.Table, part: Part) -> pa.Table:
        found = with_places(table, catalogue.read(part.name), outputs, prefix=prefix)
        return found if optional else found.filter(pc.is_valid(found[prefix + SHARD_URI]))

    return rows.then(find)


def placed(rows: Rows, loads: Sequence[Load]) -> Rows:
    """The rows with the columns of `with_places` of the imported ones among some loads."""
    imported = [(load, Catalogue.of(load.outputs.uri)) for load in loads if load.imported]

    def place(table: pa.Table, part: Part) -> pa.Table:
        for load, catalogue in imported:
            table = with_places(table, load.ledger(part, catalogue), load.outputs, prefix=load.prefix)
        return table

    return rows.then(place) if imported else rows


def with_quarantined(table: pa.Table, ledger: Ledger) -> pa.Table:
    """Puts the rows in error that a stream has quarantined, with its reasons; rows in error stay as they are."""
    quarantine = ledger.quarantined
    position = pc.index_in(table["image_id"], quarantine["image_id"].combine_chunks())
    table = with_error_columns(table)
    for name, column in (("error_stage", "stage"), ("error_reason", "reason")):
        taken = pc.take(quarantine[column].combine_chunks(), position)
        table = table.set_column(table.column_names.index(name), name, pc.coalesce(table[name], taken))
    return table


def loaded(table: pa.Table, loads: Sequence[Load], *, rows_per_table: int) -> Iterator[pa.Table]:
    """Reads the columns of `loads` for rows with their places.

    Args:
        table: one part's rows.
        loads: what to take up.
        rows_per_table: rows that are yielded together; more where `cut` says so.

    Yields:
        Rows in the order of the first load's shards; those whose shard is damaged are in error.
    """
    if loads:
        first = loads[0].prefix
        order = [(first + SHARD_URI, "ascending"), (first + SHARD_ROW, "ascending"), ("image_id", "ascending")]
        table = with_error_columns(table.sort_by(order))
    readers = [_Reader(load, table) for load in loads]
    for some in cut(table, rows_per_table):
        for reader in readers:
            some = reader.add(some)
        yield some.drop_columns([load.prefix + name for load in loads for name in (SHARD_URI, SHARD_ROW, SHARD_DIGEST)])


class _Reader:
    """Reads the columns of a load, and keeps the shards of the last rows."""

    def __init__(self, load: Load, table: pa.Table) -> None:
        """Looks for what is wanted.

        Args:
            load: the load.
            table: all rows that will come.
        """
        self.load = load
        self.wanted: dict[str, list[int]] = {}
        for uri, row in zip(*self._places(table), strict=True):
            if uri is not None:
                self.wanted.setdefault(uri, []).append(row)
        self.read = lru_cache(_SHARDS_KEPT)(self._read)

    def _places(self, table: pa.Table) -> tuple[list[str | None], list[int]]:
        uris, rows = (table[self.load.prefix + name].to_pylist() for name in (SHARD_URI, SHARD_ROW))
        return uris, rows

    def _read(self, uri: str) -> "Loaded | ShardError":
        try:
            return read_columns(uri, self.load.columns.names, rows=self.wanted[uri])
        except ShardError as error:
            return error

    def add(self, table: pa.Table) -> pa.Table:
        """Adds the load's columns; a row whose shard is damaged is in error."""
        columns: dict[str, list[Any]] = {name: [] for name in self.load.columns.names}
        reasons: list[str | None] = []
        for uri, row in zip(*self._places(table), strict=True):
            shard = None if uri is None else self.read(uri)
            reasons.append(str(shard) if isinstance(shard, ShardError) else None)
            values = shard.row(row) if isinstance(shard, Loaded) else {}
            for name, found in columns.items():
                found.append(values.get(name))
        for name, field_ in zip(self.load.writes, self.load.columns, strict=True):
            table = table.append_column(name, pa.array(columns[field_.name], field_.type))
        return _in_error(table, reasons) if any(reasons) else table


@dataclass(frozen=True)
class Loaded:
    """Some groups of a shard's rows."""

    table: pa.Table
    starts: tuple[int, ...]
    """Number of the first row of each group in the shard, and in the table."""
    offsets: tuple[int, ...]

    def row(self, number: int) -> dict[str, Any]:
        """The values of a row by its number in the shard."""
        group = bisect_right(self.starts, number) - 1
        index = self.offsets[group] + number - self.starts[group]
        return {name: self.table[name][index].as_py() for name in self.table.column_names}


def _in_error(table: pa.Table, reasons: Sequence[str | None]) -> pa.Table:
    table = with_error_columns(table)
    stages = pa.array([reason and Load.__name__ for reason in reasons], pa.string())
    for name, values in (("error_stage", stages), ("error_reason", pa.array(reasons, pa.string()))):
        index = table.column_names.index(name)
        table = table.set_column(index, name, pc.coalesce(table[name], values))
    return table


def read_columns(uri: str, names: Sequence[str], *, rows: Sequence[int]) -> Loaded:
    """Reads columns of the groups of a shard that hold some rows, in few requests and few bytes that nobody wants.

    Raises:
        ShardError: the shard is damaged, lacks a column or isn't there.
        OSError: the storage can't be reached.
    """
    fs, path = storage.filesystem(uri)
    try:
        with fs.open(path, "rb", cache_type="none") as file:
            parquet = pq.ParquetFile(file)
            footer, present, size = parquet.metadata, parquet.schema_arrow.names, file.size
    except (pa.ArrowException, FileNotFoundError) as error:
        raise damaged(uri, error) from error
    if missing := [name for name in names if name not in present]:
        raise ShardError(f"{uri} lacks columns {missing}; it has {present}: {WAY_OUT}")
    sizes = [footer.row_group(number).num_rows for number in range(footer.num_row_groups)]
    starts = np.cumsum([0, *sizes[:-1]])
    if rows and max(rows) >= sum(sizes):
        raise ShardError(f"{uri} has {sum(sizes)} rows, and its index names row {max(rows)}: {WAY_OUT}")
    groups = sorted(set((np.searchsorted(starts, rows, side="right") - 1).tolist()))
    ranges = _merged(_column_ranges(footer, names, groups))
    found = fs.cat_ranges([path] * len(ranges), *([each[end] for each in ranges] for end in (0, 1)))
    known = dict(zip(ranges, found, strict=True))
    try:
        with fs.open(path, "rb", cache_type="parts", cache_options={"data": known}, size=size) as file:
            read = pq.ParquetFile(file, metadata=footer, page_checksum_verification=True)
            table = read.read_row_groups(groups, columns=list(names))
    except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
        raise damaged(uri, error) from error
    offsets = np.cumsum([0, *(sizes[group] for group in groups[:-1])])
    return Loaded(table, tuple(int(starts[group]) for group in groups), tuple(offsets.tolist()))


def _column_ranges(metadata: pq.FileMetaData, names: Sequence[str], groups: Sequence[int]) -> list[tuple[int, int]]:
    found = []
    for number in groups:
        group = metadata.row_group(number)
        for index in range(group.num_columns):
            column = group.column(index)
            if column.path_in_schema.split(".")[0] in names:
                start = column.dictionary_page_offset or column.data_page_offset
                start = min(start, column.data_page_offset)
                found.append((start, start + column.total_compressed_size))
    return sorted(found)


def _merged(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Joins neighbouring ranges, those with the smallest gaps first, as long as little is fetched for nothing."""
    if not ranges:
        return []
    gaps = sorted((after[0] - before[1], number) for number, (before, after) in enumerate(pairwise(ranges)))
    left = _MOST_WASTE * sum(stop - start for start, stop in ranges)
    joined = set()
    for gap, number in gaps:
        if gap > left:
            break
        left -= gap
        joined.add(number)
    merged = [ranges[0]]
    for number, (start, stop) in enumerate(ranges[1:]):
        merged[-1:] = [(merged[-1][0], stop)] if number in joined else [merged[-1], (start, stop)]
    return merged
