"""Settles a part of a stream's outputs: large shards that hold exactly its valid rows, and one index of them.

Valid is the output of a row that the manifest has, made of the row as it is now. Outputs of rows that weren't asked
for, such as those of another split, stay; those of rows that were changed or removed, or whose load is gone, and second
ones, go.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.rows import Part
from raypipe.faults import sentence
from raypipe.outputs.lease import check_epoch
from raypipe.outputs.ledger import (
    ATTEMPTS,
    ENTRIES,
    INDEX,
    QUARANTINED,
    SETTLED,
    SHARDS,
    Ledger,
    read_ledger,
    without_lost,
    write_entries,
)
from raypipe.outputs.sink import write_shard
from raypipe.schema import ROW_DIGEST
from raypipe.streams.source import Source

SHARD_BYTES = 64 * 2**20
"""Of a settled part's shards, where it has that much."""


@dataclass(frozen=True)
class Settled:
    """The account of a part."""

    num_rows: int
    """That were asked for."""
    num_finished: int
    num_quarantined: int
    reasons: tuple[str, ...] = ()
    """Of the first rows in quarantine."""


def settle(source: Source, part: Part) -> Settled:
    """Counts the rows of a part, and settles it where all of them are done.

    Args:
        source: of the stream.
        part: of the manifest.

    Returns:
        The account.

    Raises:
        LeaseLost: if another run has begun, whose files these must not be mixed with.
    """
    folder = source.folder
    wanted = source.wanted(part).select(["image_id", ROW_DIGEST])
    ledger = read_ledger(folder, part.name)
    present = _ids(part.read())
    if source.plan.takes:
        present = _without(present, asked=_ids(source.rows.read(part)), wanted=_ids(wanted))
    finished = _valid(ledger.finished, wanted, present)
    quarantined = _valid(ledger.quarantined, wanted, present)
    quarantined = quarantined.filter(pc.invert(pc.is_in(quarantined["image_id"], _ids(finished))))
    num_finished, num_quarantined = (
        pc.sum(pc.is_in(wanted["image_id"], _ids(table))).as_py() or 0 for table in (finished, quarantined)
    )
    failed = quarantined.filter(pc.is_in(quarantined["image_id"], _ids(wanted)))
    reasons = tuple(f"{row['image_id']}: {sentence(row['reason'])}" for row in failed.slice(0, 3).to_pylist())
    account = Settled(wanted.num_rows, num_finished, num_quarantined, reasons)
    exact = len(finished) == len(ledger.finished) and len(quarantined) == len(ledger.quarantined)
    if num_finished + num_quarantined == wanted.num_rows and not (exact and ledger.is_settled):
        _rewrite(source, part, ledger, finished, quarantined)
    return account


def _without(present: pa.Array, *, asked: pa.Array, wanted: pa.Array) -> pa.Array:
    """Leaves out the rows that were asked for and that can't be computed: what they were made of is gone."""
    gone = pc.and_(pc.is_in(present, asked), pc.invert(pc.is_in(present, wanted)))
    return present.filter(pc.invert(gone))


def _valid(done: pa.Table, wanted: pa.Table, present: pa.Array) -> pa.Table:
    """Of what is done, the first of each row that the manifest has, as it is now."""
    position = pc.index_in(done["image_id"], _ids(wanted))
    digest = pc.take(wanted[ROW_DIGEST].combine_chunks(), position)
    current = pc.fill_null(pc.equal(digest, done[ROW_DIGEST]), True)  # noqa: FBT003 - not asked for: stays
    valid = done.filter(pc.and_(current, pc.is_in(done["image_id"], present)))
    numbered = valid.select(["image_id"]).append_column("number", pa.array(range(valid.num_rows)))
    firsts = numbered.group_by("image_id", use_threads=False).aggregate([("number", "min")])["number_min"]
    return valid if len(firsts) == len(valid) else valid.take(firsts.combine_chunks().sort())


def _ids(table: pa.Table) -> pa.Array:
    return pa.concat_arrays(table["image_id"].chunks) if table.num_rows else pa.array([], pa.string())


def _rewrite(source: Source, part: Part, ledger: Ledger, finished: pa.Table, quarantined: pa.Table) -> None:
    """Writes what is valid before it deletes what was there: whatever is interrupted is taken up by the next run."""
    folder = source.folder
    check_epoch(folder, source.run)
    finished = without_lost(folder, part.name, replace(ledger, finished=finished)).finished
    before = _by_shard(ledger.finished)
    now = _by_shard(finished)
    kept = {
        shard
        for shard, entries in now.items()
        if shard.startswith(f"{SHARDS}/{part.name}/")
        and len(entries) == len(before[shard])
        and entries["size"][0].as_py() >= SHARD_BYTES // 2
    }
    written = [now[shard] for shard in sorted(kept)]
    is_kept = pc.is_in(finished["shard"].cast(pa.string()), pa.array(sorted(kept), pa.string()))
    rewritten = groups(finished.filter(pc.invert(is_kept)))
    written += [write_shard(folder, SHARDS, part.name, read_group(folder, group)) for group in rewritten]
    check_epoch(folder, source.run)  # they took a while
    index = pa.concat_tables(written) if written else ENTRIES.empty_table()
    files = {
        INDEX: write_entries(folder, INDEX, part.name, index, run=source.run, level=SETTLED),
        QUARANTINED: write_entries(folder, QUARANTINED, part.name, quarantined, run=source.run, level=SETTLED),
    }
    storage.delete_many(old for kind, uri in files.items() for old in ledger.files[kind] if old != uri)
    shards = set(_by_shard(index))
    storage.delete_many(
        uri
        for kind in (SHARDS, ATTEMPTS)
        for uri in storage.list_files(storage.join(folder, kind, part.name), suffix=".parquet")
        if f"{kind}/{part.name}/{uri.rsplit('/', 1)[1]}" not in shards
    )


def _by_shard(entries: pa.Table) -> dict[str, pa.Table]:
    shards = entries["shard"].cast(pa.string())
    table = entries.set_column(entries.column_names.index("shard"), "shard", shards).sort_by("shard")
    names = table["shard"].to_pylist()
    starts = [index for index, name in enumerate(names) if not index or name != names[index - 1]]
    stops = [*starts[1:], len(names)]
    return {
        names[start]: table.slice(start, stop - start).cast(ENTRIES) for start, stop in zip(starts, stops, strict=True)
    }


def groups(entries: pa.Table) -> Iterator[list[pa.Table]]:
    """Rows of an index by the shards that they are in; shards that become one together, in the order of their ids."""
    group: list[pa.Table] = []
    size = 0
    for entries in sorted(_by_shard(entries).values(), key=lambda entries: pc.min(entries["image_id"]).as_py()):
        group.append(entries)
        size += entries["size"][0].as_py()
        if size >= SHARD_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def read_group(folder: str, group: Sequence[pa.Table]) -> pa.Table:
    """The rows that a group's entries name."""
    names = {entries["shard"][0].as_py(): entries for entries in group}
    contents = storage.read_many([storage.join(folder, name) for name in names])
    tables = []
    for name, entries in names.items():
        content = contents[storage.join(folder, name)]
        if isinstance(content, Exception):
            raise content
        table = pq.read_table(pa.BufferReader(content))
        tables.append(table.take(entries["row"]) if len(entries) < len(table) else table)
    return pa.concat_tables(tables)
