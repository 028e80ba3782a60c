"""Imports maps that another program made: each source file by a task of its own, then one look at them all.

What was found in a file stays until the file changes, so an import that was interrupted, or whose source has grown,
goes on. The driver holds names and counts.
"""

import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.cluster.connect import connect
from raypipe.config import Cluster
from raypipe.data.parts import open_manifest
from raypipe.data.rows import ONLY_PART
from raypipe.formats.seeds.read import FoundSeed, UnreadableSource, find_seed_files, read_seeds
from raypipe.imports.account import Account
from raypipe.outputs.imported import read_source, write_seeds_file
from raypipe.outputs.lease import hold
from raypipe.outputs.ledger import ENTRIES, INDEX, QUARANTINED, SETTLED, SHARDS, write_entries
from raypipe.outputs.sink import write_shard
from raypipe.pipelines.imports.seed_accounts import Seen, account_of
from raypipe.schema import GIVEN_SEEDS, ROW_DIGEST
from raypipe.streams.tasks import in_tasks
from raypipe.uri import is_local, name_of

UNITS = "units"

FILES_PER_UNIT = 256
"""`.npz` files that a task reads; of Parquet files it reads one."""

_FEW_BYTES = 64 * 2**20
"""Of files that this process reads itself: starting Ray would take longer."""

_BYTES_PER_SHARD = 64 * 2**20

_THREADS = 16

UNIT = pa.schema([*ENTRIES, pa.field("reason", pa.string()), pa.field("classes", pa.list_(pa.string()))])
"""What was found of an image: where its maps lie, or the reason why they were left out; of which classes they are."""

_SHARD = pa.schema([pa.field("image_id", pa.string()), *GIVEN_SEEDS, pa.field(ROW_DIGEST, pa.string())])


def import_seeds(source: str, manifest: str, out: str) -> Account:
    """Writes the maps of a folder, or of a file, as shards that a run reads with `checkpoints.seeds=OUT`.

    Args:
        source: URI of a folder that holds `<image_id>.npz` or Parquet files, or of one such file.
        manifest: URI of the manifest whose images they are of; what doesn't fit it is counted and named.
        out: URI of the folder to write into.

    Raises:
        ValueError: there are no maps, or `out` has those of another source.
    """
    rows = open_manifest(manifest)
    uris = find_seed_files(source)
    before = read_source(out)
    if before is not None and before != storage.absolute(source):
        raise ValueError(
            f"{out} has the seeds of {before}, these are of {source}: seeds of two makers go into two folders, or the "
            "networks that were trained on the first would be taken for trained on the second; name another one"
        )
    single = [uri for uri in uris if uri.endswith(".npz")]
    units = [[uri] for uri in uris if not uri.endswith(".npz")]
    units += [single[start : start + FILES_PER_UNIT] for start in range(0, len(single), FILES_PER_UNIT)]
    inline = _are_few(source)
    if not inline:
        connect(Cluster())
    with hold(out, holder="the import of seeds"):
        found = list(in_tasks(partial(_read_unit, out), units, inline=inline, cpus=1))
        ((seen, shards),) = in_tasks(partial(_index, out, manifest), [found], inline=inline, cpus=1)
        if not seen.num_images:
            raise ValueError(
                f"{source} has no maps that could be used; the first: {next(iter(seen.left_out.values()), 'no row')}"
            )
        write_seeds_file(out, source=source, num_images=seen.num_images)
        kept = {*(storage.absolute(storage.join(out, name)) for name in shards), *found}
        old = [uri for kind in (SHARDS, UNITS) for uri in storage.list_files(storage.join(out, kind))]
        storage.delete_many(uri for uri in old if uri not in kept)
    return account_of(seen, source=source, manifest=manifest, classes=rows.classes)


def _are_few(source: str) -> bool:
    sizes = storage.list_sizes(source)
    local = is_local(storage.absolute(source))
    known = [Path(uri).stat().st_size if local and size is None else size or 0 for uri, size in sizes.items()]
    return sum(known) <= _FEW_BYTES


def _read_unit(out: str, uris: list[str]) -> str:
    """Writes what some files hold, unless that is there already; the URI of what was found."""
    with ThreadPoolExecutor(_THREADS) as threads:
        versions = list(threads.map(storage.version, uris))
    made_of = storage.digest([[name_of(uri), version] for uri, version in zip(uris, versions, strict=True)])
    place = storage.join(out, UNITS, f"{made_of}.parquet")
    if storage.exists(place):
        return storage.absolute(place)
    done: list[pa.Table] = []
    waiting: list[FoundSeed] = []
    size = 0
    for uri in uris:
        try:
            for seed in read_seeds(uri):
                waiting.append(seed)
                size += len(seed.columns["seed"]) if seed.columns else 0
                if size >= _BYTES_PER_SHARD:
                    done.append(_write(out, waiting))
                    waiting, size = [], 0
        except UnreadableSource as error:
            waiting.append(FoundSeed(name_of(uri), None, "", str(error)[:1000]))
    done.append(_write(out, waiting))
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.concat_tables(done).unify_dictionaries(), buffer, compression="zstd")
    storage.write_bytes_atomic(place, buffer.getvalue().to_pybytes())
    return storage.absolute(place)


def _write(out: str, seeds: Sequence[FoundSeed]) -> pa.Table:
    """Writes a shard of the maps, with the columns of `UNIT`; of an image that comes twice both rows."""
    good = [seed for seed in seeds if seed.columns is not None]
    rows = [{"image_id": seed.image_id, **(seed.columns or {}), ROW_DIGEST: seed.digest} for seed in good]
    entries = write_shard(out, SHARDS, ONLY_PART, pa.Table.from_pylist(rows, schema=_SHARD))
    names = {seed.digest: (seed.columns or {})["seed_classes"] for seed in good}
    entries = entries.append_column("reason", pa.nulls(len(entries), pa.string()))
    classes = [names[digest] for digest in entries[ROW_DIGEST].to_pylist()]
    entries = entries.append_column("classes", pa.array(classes, pa.list_(pa.string())))
    left_out: list[dict[str, Any]] = [
        {"image_id": seed.image_id, ROW_DIGEST: seed.digest, "reason": seed.reason}
        for seed in seeds
        if seed.columns is None
    ]
    return pa.concat_tables([entries.cast(UNIT), pa.Table.from_pylist(left_out, schema=UNIT)])


def _index(out: str, manifest: str, units: list[str]) -> tuple[Seen, list[str]]:
    """Writes where each image's maps are, and which are left out; what there is to say of them, and all shards.

    The shards are those that the units name, whether an image takes its maps from there or not: once it has one map
    alone, the next import finds the unit done and reads nothing again.
    """
    contents = storage.read_many(units)
    tables = []
    for content in contents.values():
        if isinstance(content, Exception):
            raise content
        tables.append(pq.read_table(pa.BufferReader(content)).cast(UNIT))
    table = pa.concat_tables(tables).unify_dictionaries().combine_chunks()
    good, bad = (table.filter(test) for test in (pc.is_null(table["reason"]), pc.is_valid(table["reason"])))
    seeds, several = _once(good)
    said = [*zip(bad["image_id"].to_pylist(), bad["reason"].to_pylist(), strict=True)]
    said += [(name, "it has several maps of the image: keep one, then import them again") for name in several]
    reasons = {name: reason for name, reason in said if name}
    ids = pa.array(reasons, pa.string())
    only_bad = ids.filter(pc.invert(pc.is_in(ids, seeds["image_id"].combine_chunks()))).to_pylist()
    quarantine = pa.table(
        {
            "image_id": only_bad,
            "stage": ["ImportSeeds"] * len(only_bad),
            "reason": [reasons[name] for name in only_bad],
            ROW_DIGEST: [storage.digest(reasons[name]) for name in only_bad],
        }
    )
    for kind, rows in ((INDEX, seeds.select(ENTRIES.names)), (QUARANTINED, quarantine)):
        old = storage.list_files(storage.join(out, kind))
        made_of = json.dumps([rows["image_id"].to_pylist(), rows[ROW_DIGEST].to_pylist()])
        new = write_entries(out, kind, ONLY_PART, rows, run=1, level=SETTLED, made_of=made_of)
        storage.delete_many(uri for uri in old if new is None or uri != storage.absolute(new))
    return Seen.of(open_manifest(manifest), seeds, dict(said)), pc.unique(good["shard"].cast(pa.string())).to_pylist()


def _once(table: pa.Table) -> tuple[pa.Table, list[str]]:
    """The rows of images that have one content alone, each once; and the ids of the others."""
    numbered = table.select(["image_id", ROW_DIGEST]).append_column("number", pa.array(range(len(table)), pa.int64()))
    groups = numbered.group_by("image_id", use_threads=False).aggregate(
        [("number", "min"), (ROW_DIGEST, "count_distinct")]
    )
    same = pc.equal(groups[f"{ROW_DIGEST}_count_distinct"], 1)
    several: list[str] = groups.filter(pc.invert(same))["image_id"].to_pylist()
    return table.take(groups.filter(same)["number_min"].combine_chunks().sort()), sorted(several)
