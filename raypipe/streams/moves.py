"""Files the outputs of rows that lie in another part of the manifest than when they were made.

Such rows are found by their ids and digests, and their outputs copied; nothing is computed again.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.rows import Part
from raypipe.outputs.ledger import (
    ATTEMPTS,
    ENTRIES,
    INDEX,
    QUARANTINED,
    SHARDS,
    Catalogue,
    write_entries,
)
from raypipe.outputs.sink import write_shard
from raypipe.schema import QUARANTINE
from raypipe.streams.settle import groups, read_group
from raypipe.streams.source import Source, not_among
from raypipe.streams.tasks import are_few, in_tasks
from raypipe.uri import name_of

PARTS_FILE = "parts.json"
"""Rows of each part of the manifest that the folder was last used with."""

MOVING = "moving"
"""Folder of what isn't where the manifest has it, while it is filed."""

_SCHEMAS = {INDEX: ENTRIES, QUARANTINED: QUARANTINE}


def file_moved_rows(source: Source) -> bool:
    """Copies what is in another part than its row, unless the manifest's parts are those of the last run.

    A part that the manifest doesn't have any more goes, where one of its rows was found in another part.

    Args:
        source: the rows as they are now.

    Returns:
        Whether anything was moved, so that what is done has to be looked up again.
    """
    folder, parts = source.folder, source.rows.parts
    now = {part.name: part.num_rows for part in parts}
    uri = storage.join(folder, PARTS_FILE)
    before = json.loads(storage.read_bytes(uri)) if storage.exists(uri) else {}
    if before == now:
        return False
    moved: list[str] = []
    if before:
        inline = are_few(source.rows)
        list(in_tasks(partial(_note_strays, source), parts, inline=inline))
        gone = [name for name in source.catalogues[folder].files if name not in now]
        list(in_tasks(partial(_note_all, source.catalogues[folder]), gone, inline=inline))
        moved = [name for names in in_tasks(partial(_take_in, source), parts, inline=inline) for name in names]
        for name in sorted(set(gone) & set(moved)):
            for kind in (INDEX, QUARANTINED, SHARDS, ATTEMPTS):
                _delete_all(storage.join(folder, kind, name))
        _delete_all(storage.join(folder, MOVING))
    storage.write_bytes_atomic(uri, json.dumps(now, indent=1).encode())
    return bool(moved)


def _note_strays(source: Source, part: Part) -> None:
    """Writes down what is filed under a part and isn't in it."""
    ids = part.read()["image_id"].combine_chunks()
    ledger = source.catalogues[source.folder].read(part.name)
    for kind, table in ((INDEX, ledger.finished), (QUARANTINED, ledger.quarantined)):
        _note(source.folder, kind, part.name, table.filter(pc.invert(pc.is_in(table["image_id"], ids))))


def _note_all(catalogue: Catalogue, part: str) -> None:
    ledger = catalogue.read(part)
    for kind, table in ((INDEX, ledger.finished), (QUARANTINED, ledger.quarantined)):
        _note(catalogue.folder, kind, part, table)


def _note(folder: str, kind: str, part: str, table: pa.Table) -> None:
    if table.num_rows:
        buffer = pa.BufferOutputStream()
        pq.write_table(table.cast(_SCHEMAS[kind]), buffer, compression="zstd")
        uri = storage.join(folder, MOVING, kind, f"{part}.parquet")
        storage.write_bytes_atomic(uri, buffer.getvalue().to_pybytes())


def _take_in(source: Source, part: Part) -> list[str]:
    """Copies what was written down and is of a part's rows that aren't done; returns the parts that it comes from."""
    todo = source.todo(part)
    found = {kind: list(_wanted(source.folder, kind, todo)) for kind in (INDEX, QUARANTINED)}
    for each in found[INDEX]:
        for group in groups(each.entries):
            entries = write_shard(source.folder, ATTEMPTS, part.name, read_group(source.folder, group))
            write_entries(source.folder, INDEX, part.name, entries, run=source.run)
    for each in found[QUARANTINED]:
        write_entries(source.folder, QUARANTINED, part.name, each.entries, run=source.run)
    return sorted({each.part for kind in found.values() for each in kind})


@dataclass(frozen=True)
class _Found:
    """Rows of an index that belong to another part."""

    part: str
    entries: pa.Table


def _wanted(folder: str, kind: str, todo: pa.Table) -> Iterator[_Found]:
    if not todo.num_rows:
        return
    for uri in storage.list_files(storage.join(folder, MOVING, kind), suffix=".parquet"):
        table = pq.read_table(pa.BufferReader(storage.read_bytes(uri))).cast(_SCHEMAS[kind])
        entries = table.filter(pc.invert(not_among(table, todo)))
        if entries.num_rows:
            yield _Found(name_of(uri).removesuffix(".parquet"), entries)


def _delete_all(folder: str) -> None:
    storage.delete_many(storage.list_files(folder))
