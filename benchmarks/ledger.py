"""What it takes to find out what a stream has done: a million rows, in one part that isn't finished, and in parts.

    PYTHONPATH=. python benchmarks/ledger.py --rows 1000000 --latency 0.025

It starts moto and a proxy that counts and adds latency. Folders lie in S3 as a stream leaves them: of the unfinished
part an attempt and a small index a commit, the indexes folded ten to one; of each finished part one index.
"""

import hashlib
import time
from collections.abc import Callable

import fsspec
import numpy as np
import pyarrow as pa
import typer
from measure import machine
from stores import Proxy, counted_s3

from raypipe import schema
from raypipe.artifacts import Artifact
from raypipe.data.manifest import Manifest
from raypipe.data.parts import open_manifest, write_manifest
from raypipe.data.rows import Rows
from raypipe.outputs.ledger import ATTEMPTS, ENTRIES, FOLDED, INDEX, SETTLED, SHARDS, Catalogue, write_entries
from raypipe.outputs.load import with_places
from raypipe.outputs.records import row_digests
from raypipe.schema import ROW_DIGEST, SHARD_URI
from raypipe.stages.fetch import FetchImages
from raypipe.streams.plan import Plan
from raypipe.streams.source import Source

ROWS_PER_COMMIT = 32
ROWS_PER_SHARD = 1_300
"""Of a finished part, whose shards have 64 MiB: seeds of 48 KB."""
CLASSES = ("cat", "dog")
PLAN = Plan(
    name="seeds",
    stages=(FetchImages(classes=CLASSES),),
    schema=pa.schema([("image_id", pa.string())]),
    classes=CLASSES,
)
"""Its rows are known by their URI and labels, as those of a real stream."""


def make_table(num_rows: int) -> pa.Table:
    """A manifest's rows."""
    ids = pa.array([f"img_{number:09d}" for number in range(num_rows)])
    uris = pa.array([f"s3://photos/2026/img_{number:09d}.jpg" for number in range(num_rows)])
    labels = pa.array(np.resize(np.array(CLASSES), num_rows))
    lists = pa.ListArray.from_arrays(pa.array(range(num_rows + 1), pa.int32()), labels)
    table = pa.table({"image_id": ids, "image_uri": uris, "labels": lists})
    return pa.table(
        {
            field.name: table[field.name] if field.name in table.column_names else pa.nulls(num_rows, field.type)
            for field in schema.MANIFEST
        }
    )


def name_of(number: int) -> str:
    """Of a shard: a digest, as real ones have."""
    return f"{hashlib.sha256(str(number).encode()).hexdigest()[:16]}.parquet"


def entries(table: pa.Table, *, kind: str, part: str, first: int, rows_per_shard: int) -> pa.Table:
    """The index of rows in shards of so many rows."""
    numbers = np.arange(table.num_rows)
    names = [f"{kind}/{part}/{name_of(first + number)}" for number in range(-(-table.num_rows // rows_per_shard))]
    shard = pa.DictionaryArray.from_arrays(pa.array(numbers // rows_per_shard, pa.int32()), pa.array(names))
    columns = {
        "image_id": table["image_id"],
        ROW_DIGEST: row_digests(table, PLAN.row_columns()),
        "shard": shard,
        "row": pa.array(numbers % rows_per_shard, pa.int32()),
        "size": pa.array(np.full(table.num_rows, 48_000 * rows_per_shard)),
    }
    return pa.table(columns).cast(ENTRIES)


def write_unfinished(folder: str, table: pa.Table) -> int:
    """What a stream leaves of a part that isn't finished; the number of files of its index."""
    commits = table.num_rows // ROWS_PER_COMMIT
    objects = {f"{folder}/{ATTEMPTS}/all/{name_of(number)}": b"" for number in range(commits)}
    fsspec.filesystem("s3").pipe(objects)
    start, files = 0, 0
    for level in range(SETTLED - 1, -1, -1):
        for _ in range(commits // FOLDED**level % (FOLDED if level < SETTLED - 1 else commits + 1)):
            number = FOLDED**level
            some = table.slice(start * ROWS_PER_COMMIT, number * ROWS_PER_COMMIT)
            index = entries(some, kind=ATTEMPTS, part="all", first=start, rows_per_shard=ROWS_PER_COMMIT)
            write_entries(folder, INDEX, "all", index, run=1, level=level)
            start, files = start + number, files + 1
    return files


def write_finished(folder: str, rows: Rows) -> None:
    """What a stream leaves of finished parts."""
    for part in rows.parts:
        table = part.read()
        index = entries(table, kind=SHARDS, part=part.name, first=0, rows_per_shard=ROWS_PER_SHARD)
        names = [
            f"{folder}/{SHARDS}/{part.name}/{name_of(number)}" for number in range(-(-len(table) // ROWS_PER_SHARD))
        ]
        fsspec.filesystem("s3").pipe(dict.fromkeys(names, b""))
        write_entries(folder, INDEX, part.name, index, run=1, level=SETTLED)


def look(name: str, manifest: str, folder: str, proxy: Proxy) -> None:
    """Prints what it takes to find what is done, and then where the rows are; the manifest is read for either."""

    def measure(question: str, find: Callable[[Rows], int]) -> None:
        before, started = proxy.now(), time.perf_counter()
        found = find(Rows(open_manifest(manifest).parts))
        seconds, after = time.perf_counter() - started, proxy.now()
        requests, size = (after[key] - before.get(key, 0) for key in ("passed on", "bytes read"))
        print(f"| {name} | {question} | {found} | {requests} | {size / 1e6:.1f} | {seconds:.1f} |")

    def left(rows: Rows) -> int:
        source = Source.of(PLAN, rows, folder, run=2)
        return sum(source.todo(part).num_rows for part in rows.parts)

    def placed(rows: Rows) -> int:
        catalogue, found = Catalogue.of(folder), 0
        for part in rows.parts:
            uris = with_places(part.read(), catalogue.read(part.name), Artifact(folder, "0" * 12))[SHARD_URI]
            found += len(uris) - uris.null_count
        return found

    measure("rows left to do", left)
    measure("rows whose place is known", placed)


def main(rows: int = 1_000_000, parts: int = 20, latency: float = 0.025) -> None:
    """Writes the folders and looks at them."""
    with counted_s3() as proxy:
        fsspec.filesystem("s3").mkdir("bucket")
        table = make_table(rows)
        manifest = Manifest(table, CLASSES)
        write_manifest(manifest, "s3://bucket/one.parquet")
        write_manifest(manifest, "s3://bucket/parts", rows_per_part=-(-rows // parts))
        files = write_unfinished("s3://bucket/unfinished", table)
        write_finished("s3://bucket/finished", Rows(open_manifest("s3://bucket/parts").parts))
        print(f"{machine()}\n{rows} rows; the unfinished part has {rows // ROWS_PER_COMMIT} commits, {files} files\n")
        proxy.stop()
        proxy.start(latency=latency)
        print("| | | rows | requests | MB | s |\n|---|---|---|---|---|---|")
        look("one unfinished part", "s3://bucket/one.parquet", "s3://bucket/unfinished", proxy)
        look("finished parts", "s3://bucket/parts", "s3://bucket/finished", proxy)


if __name__ == "__main__":
    typer.run(main)
