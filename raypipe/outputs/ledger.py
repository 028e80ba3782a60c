"""What a stream has done, part by part of the manifest: the only record of it, besides the outputs themselves.

    <folder>/shards/<part>/*.parquet       finished rows of the parts that are settled
    <folder>/attempts/<part>/*.parquet     finished rows of the others
    <folder>/quarantine/<part>/*.parquet   rows that couldn't be processed, and why
    <folder>/index/<part>/*.parquet        where each finished row is: a shard, and the row's number in it

A worker writes an attempt and then, as a small file, its index: from then on the rows are done. Ten files of an index
are folded to one, ten of those again, so that a part of a million rows has some dozens of them, and one when it is
settled. A row that stands in an index twice is done once: the same task may run twice, on a machine that is believed to
be gone, too.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.schema import QUARANTINE, ROW_DIGEST
from raypipe.uri import name_of, parent

SHARDS, ATTEMPTS, QUARANTINED, INDEX = "shards", "attempts", "quarantine", "index"

ENTRIES = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field(ROW_DIGEST, pa.string()),
        pa.field("shard", pa.dictionary(pa.int32(), pa.string())),
        pa.field("row", pa.int32()),
        pa.field("size", pa.int64()),
    ]
)
"""A row of an index. `shard`: path in the stream's folder; `row`: number in it, from 0; `size`: of the shard, bytes."""

SETTLED = 9
"""Level of the one file of a settled part."""

FOLDED = 10
"""So many files of one level are folded to one of the next."""

_NAMES_AN_ANSWER = 1000
"""Of an object store that is asked for a list."""

_SCHEMAS = {INDEX: ENTRIES, QUARANTINED: QUARANTINE}


@dataclass(frozen=True)
class Ledger:
    """What is done of a part."""

    finished: pa.Table
    """With the columns of `ENTRIES`; no pair of id and digest twice."""
    quarantined: pa.Table
    """With the columns of `QUARANTINE`; the same."""
    files: dict[str, list[str]]
    """URIs of the files that say so, by kind: `INDEX` and `QUARANTINED`."""

    @property
    def is_settled(self) -> bool:
        """Whether one file says where all rows are, and none is an attempt."""
        index, quarantine = self.files[INDEX], self.files[QUARANTINED]
        return all(len(files) <= 1 for files in (index, quarantine)) and all(level_of(uri) == SETTLED for uri in index)


@dataclass(frozen=True)
class Catalogue:
    """The files that say what a stream has done, by part, as they were when it was made: what comes later isn't in it.

    Two listings find those of all parts.
    """

    folder: str
    files: dict[str, dict[str, tuple[str, ...]]]
    """By the name of the part and kind, `INDEX` or `QUARANTINED`."""

    @classmethod
    def of(cls, folder: str) -> "Catalogue":
        """Lists the files of a stream's folder."""
        files: dict[str, dict[str, tuple[str, ...]]] = {}
        for kind in (INDEX, QUARANTINED):
            for uri in storage.list_files(storage.join(folder, kind), suffix=".parquet"):
                of_part = files.setdefault(name_of(parent(uri)), {})
                of_part[kind] = (*of_part.get(kind, ()), uri)
        return cls(folder, files)

    def read(self, part: str) -> Ledger:
        """Reads what was done of a part.

        Raises:
            FileNotFoundError: if a file was folded since.
            ValueError: if one can't be read.
        """
        return _read(self.files.get(part, {}))


def read_ledger(folder: str, part: str) -> Ledger:
    """Reads what is done of a part now; errors as of `Catalogue.read`."""
    kinds = (INDEX, QUARANTINED)
    return _read(
        {kind: tuple(storage.list_files(storage.join(folder, kind, part), suffix=".parquet")) for kind in kinds}
    )


def _read(files: Mapping[str, Sequence[str]]) -> Ledger:
    contents = storage.read_many([uri for uris in files.values() for uri in uris])
    tables: dict[str, list[pa.Table]] = {INDEX: [], QUARANTINED: []}
    for kind, uris in files.items():
        for uri in sorted(uris, key=_age):
            content = contents[uri]
            if isinstance(content, Exception):
                raise content
            tables[kind].append(_parse(content, uri, kind))
    finished, quarantined = (_once(kind, tables[kind]) for kind in (INDEX, QUARANTINED))
    return Ledger(finished, quarantined, {kind: list(files.get(kind, ())) for kind in (INDEX, QUARANTINED)})


def without_lost(folder: str, part: str, ledger: Ledger) -> Ledger:
    """Leaves out the rows whose shard isn't there: somebody has deleted it, to have them computed again."""
    named = pc.unique(ledger.finished["shard"]).cast(pa.string()).to_pylist()
    # Their names are digests, so the first letter splits many of them evenly.
    starts = {name.rsplit("/", 1)[1][0] for name in named} if len(named) > _NAMES_AN_ANSWER else {""}
    shards = {
        f"{kind}/{part}/{uri.rsplit('/', 1)[1]}"
        for kind in {name.split("/")[0] for name in named}
        for uri in storage.list_files(storage.join(folder, kind, part), suffix=".parquet", starts=starts)
    }
    lost = [name for name in named if name not in shards]
    if not lost:
        return ledger
    is_lost = pc.is_in(ledger.finished["shard"].cast(pa.string()), pa.array(lost))
    return replace(ledger, finished=ledger.finished.filter(pc.invert(is_lost)))


def forget_quarantined(folder: str) -> None:
    """Empties the quarantine of a stream's folder: the next run computes those rows as it computes new ones."""
    storage.delete_many(storage.list_files(storage.join(folder, QUARANTINED), suffix=".parquet"))


def write_entries(
    folder: str, kind: str, part: str, table: pa.Table, *, run: int, level: int = 0, made_of: str | None = None
) -> str | None:
    """Writes a file of an index; its URI, None where there are no rows.

    Args:
        folder: URI of the stream's outputs.
        kind: `INDEX` or `QUARANTINED`.
        part: the part's name.
        table: rows with the columns of the kind.
        run: number of the run that writes.
        level: 0 for what a worker has done, more for what was folded.
        made_of: says what the file is made of, so that the same is written twice as one file; None takes the ids.
    """
    if not table.num_rows:
        return None
    name = _hash(made_of or json.dumps([table["image_id"].to_pylist(), table[ROW_DIGEST].to_pylist()]))
    uri = storage.join(folder, kind, part, f"{level}-{run}-{name}.parquet")
    buffer = pa.BufferOutputStream()
    pq.write_table(table.select(_SCHEMAS[kind].names).cast(_SCHEMAS[kind]), buffer, compression="zstd")
    storage.write_bytes_atomic(uri, buffer.getvalue().to_pybytes())
    return uri


def fold(folder: str, kind: str, part: str, uris: Sequence[str], *, run: int) -> str | None:
    """Writes one file of the next level with all rows of some files, which are then deleted; its URI."""
    contents = storage.read_many(uris)
    tables = [_parse(content, uri, kind) for uri, content in contents.items() if isinstance(content, bytes)]
    for content in contents.values():
        if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
            raise content
    level = min(SETTLED - 1, 1 + max(level_of(uri) for uri in uris))
    made_of = "\n".join(sorted(name_of(uri) for uri in uris))
    written = write_entries(folder, kind, part, _once(kind, tables), run=run, level=level, made_of=made_of)
    storage.delete_many(uri for uri in uris if isinstance(contents[uri], bytes) and uri != written)
    return written


def level_of(uri: str) -> int:
    """How often the rows of an index's file were folded."""
    return int(name_of(uri).split("-")[0])


def _age(uri: str) -> tuple[int, int]:
    """Of two entries of a row the later run's counts, for that found the other's shard gone; then the settled one."""
    level, run = name_of(uri).split("-")[:2]
    return int(run), int(level)


def _parse(content: bytes, uri: str, kind: str) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(content))
        return table.select(_SCHEMAS[kind].names).cast(_SCHEMAS[kind])
    except (pa.ArrowException, OSError, KeyError) as error:
        raise ValueError(
            f"{uri} can't be read ({error}): delete it, and the same command computes its rows again"
        ) from error


def _once(kind: str, tables: Sequence[pa.Table]) -> pa.Table:
    """All rows; of those with equal id and digest the one of the last table."""
    if len(tables) < 2:
        return tables[0] if tables else _SCHEMAS[kind].empty_table()
    table = pa.concat_tables(tables[::-1]).unify_dictionaries().combine_chunks()
    numbered = table.select(["image_id", ROW_DIGEST]).append_column("number", pa.array(range(table.num_rows)))
    groups = numbered.group_by(["image_id", ROW_DIGEST], use_threads=False).aggregate([("number", "min")])
    if groups.num_rows == table.num_rows:
        return table
    return table.take(groups["number_min"].combine_chunks().sort())


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
