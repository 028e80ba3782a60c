"""A manifest as it lies in storage: a folder of Parquet parts, or one file, none of which is read before it is needed.

A part is what a stream plans, reads and accounts for at a time, so that its driver holds names and counts, however many
rows there are.
"""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.manifest import (
    Manifest,
    check_classes,
    manifest_bytes,
    not_parquet,
    read_manifest_file,
    stored_classes,
)
from raypipe.data.names import file_stem
from raypipe.data.rows import ONLY_PART, Part
from raypipe.uri import absolute, is_local, name_of, protocol, relative

ROWS_PER_PART = 50_000
"""Of the parts that raypipe writes."""

_SUFFIX = ".parquet"
_PART = re.compile(r"part-\d{5,}(-\d{3,})?\.parquet")
"""Names of the files that `part_place` gives a manifest in a folder."""

_NUM_THREADS = 16

_TAIL = 64 * 1024
"""Bytes of a file's end that hold its footer."""


@dataclass(frozen=True)
class StoredManifest:
    """A manifest whose parts lie in storage."""

    parts: tuple[Part, ...]
    classes: tuple[str, ...]
    some_splits: frozenset[str] = frozenset()
    """Splits that the files' statistics name: the first and the last of each file."""

    def __len__(self) -> int:
        return sum(part.num_rows for part in self.parts)

    @cached_property
    def splits(self) -> frozenset[str]:
        """All splits that a row has; reads that column of all parts."""
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            return frozenset().union(*threads.map(_read_splits, self.parts))

    @cached_property
    def table(self) -> pa.Table:
        """All rows in memory; see `read_manifest`."""
        return self.read().table

    def read(self) -> Manifest:
        """All rows in memory; see `read_manifest`."""
        with ThreadPoolExecutor(_NUM_THREADS) as threads:
            return Manifest(pa.concat_tables(threads.map(lambda part: part.read(), self.parts)), self.classes)


def open_manifest(uri: str) -> StoredManifest:
    """Finds a manifest's parts and classes; reads their footers and no row.

    Args:
        uri: a Parquet file, or a folder of such files; files whose names begin with `_` or `.` are left out.

    Raises:
        FileNotFoundError: there is no such file or folder, or nothing in it.
        ValueError: a file isn't part of a manifest, or names other classes than the first.
    """
    uri = absolute(uri)
    sizes = _part_sizes(uri)
    found = sorted(sizes)
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        footers = list(threads.map(lambda name: _read_footer(name, sizes[name]), found))
    if not sum(footer.num_rows for footer in footers):
        raise ValueError(f"{uri} has no rows: import the dataset again, and look at what the importer reports")
    classes = [_classes(footer, name) for footer, name in zip(footers, found, strict=True)]
    for name, others in zip(found, classes, strict=True):
        if others != classes[0]:
            raise ValueError(
                f"{name} names the classes {list(others)}, {found[0]} {list(classes[0])}: all parts of a manifest need "
                "the same classes in the same order"
            )
    parts = [
        Part(ONLY_PART if name == uri else _part_name(name, uri), footer.num_rows, partial(_read_part, name), uri=name)
        for footer, name in zip(footers, found, strict=True)
    ]
    return StoredManifest(tuple(parts), classes[0], frozenset().union(*map(_splits_of, footers)))


def read_manifest(uri: str) -> Manifest:
    """All rows of a manifest in memory, for what needs them together.

    Relative URIs in it start from the manifest's folder, so a dataset can be moved as a whole.

    Raises:
        FileNotFoundError: as `open_manifest`.
        ValueError: as `open_manifest`; or a part has rows that aren't valid, or two parts have the same `image_id`.
    """
    return open_manifest(uri).read()


def write_manifest(manifest: Manifest, uri: str, *, rows_per_part: int = ROWS_PER_PART) -> None:
    """Writes a manifest, each file atomically, with the class names in its metadata.

    Args:
        manifest: the rows.
        uri: one file where it ends in `.parquet`, else a folder of parts.
        rows_per_part: of a folder.
    """
    if uri.endswith(_SUFFIX):
        storage.write_bytes_atomic(uri, manifest_bytes(manifest.table, manifest.classes))
        return
    starts = range(0, max(1, len(manifest)), rows_per_part)
    tables = (manifest.table.slice(start, rows_per_part) for start in starts)
    write_parts(tables, manifest.classes, uri)


def write_parts(tables: Iterator[pa.Table], classes: Sequence[str], uri: str) -> int:
    """Writes one part of a manifest after another into a folder; returns the number of rows."""
    num_rows = 0
    written = []
    for number, table in enumerate(tables):
        written.append(part_place(uri, number))
        storage.write_bytes_atomic(written[-1], manifest_bytes(table, classes))
        num_rows += table.num_rows
    delete_other_parts(uri, written)
    return num_rows


def delete_other_parts(uri: str, written: Collection[str]) -> None:
    """Deletes the parts that an earlier manifest in the folder had beside those that were written now."""
    kept = {absolute(one) for one in written}
    found = storage.list_files(uri, suffix=_SUFFIX)
    storage.delete_many(one for one in found if one not in kept and _PART.fullmatch(name_of(one)))


def check_target(uri: str) -> None:
    """Makes sure that a manifest can be written to a place: a file, or a folder of its own.

    Raises:
        ValueError: it is a folder, a file that is no Parquet, or a folder that holds other things.
    """
    place = absolute(uri)
    if protocol(place) in ("http", "https"):
        raise ValueError(f"{uri} can't be written: a manifest is a local file, or lies in a store such as s3://")
    if is_local(place) and (above := [folder for folder in Path(place).parents if folder.is_file()]):
        raise ValueError(f"{above[0]} is a file, needed is a folder. Name another place for the manifest")
    inside = storage.list_files(uri)
    is_file = inside == [place]
    if uri.endswith(_SUFFIX):
        if not is_file and (inside or storage.exists(uri)):
            raise ValueError(f"{uri} is a folder: name a file in it, such as {storage.join(uri, 'm.parquet')}")
        return
    if is_file:
        raise ValueError(f"{uri} is a file, and no .parquet: a manifest is a .parquet file, or a folder of them")
    if others := [one for one in inside if not _PART.fullmatch(name_of(one))]:
        raise ValueError(
            f"{uri} is a folder that holds other things, such as {relative(others[0], place)}: name a .parquet file, "
            "or a folder for the manifest alone"
        )


def part_place(uri: str, number: int, piece: int | None = None) -> str:
    """The URI of a part in a manifest's folder; a part may be several pieces."""
    return storage.join(uri, f"part-{number:05d}{'' if piece is None else f'-{piece:03d}'}{_SUFFIX}")


def _part_sizes(uri: str) -> dict[str, int | None]:
    inside = {} if uri.endswith(_SUFFIX) else storage.list_sizes(uri, suffix=_SUFFIX)
    parts = {name: size for name, size in inside.items() if not name_of(name).startswith(("_", "."))}
    return parts or {uri: None}


def _part_name(uri: str, folder: str) -> str:
    inside = relative(uri, absolute(folder))
    assert inside is not None
    return file_stem(inside.removesuffix(_SUFFIX))


def _read_part(uri: str) -> pa.Table:
    return read_manifest_file(uri).table


def _read_footer(uri: str, size: int | None) -> pq.FileMetaData:
    """A footer; in one request where the file's size is known and the footer is no larger than they are."""
    fs, path = storage.filesystem(uri)
    try:
        if size is not None:
            tail = fs.cat_file(path, start=max(0, size - _TAIL), end=size)
            if int.from_bytes(tail[-8:-4], "little") + 8 <= len(tail):
                return pq.read_metadata(pa.BufferReader(tail))
        with storage.opened(uri) as file:
            return pq.read_metadata(file)
    except IsADirectoryError as error:
        raise FileNotFoundError(
            f"{uri} has no Parquet files: give a manifest's file, or the folder of its parts"
        ) from error
    except (FileNotFoundError, PermissionError):
        raise
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the storage's: Arrow's own have no number
            raise
        raise not_parquet(uri, error) from error


def _classes(footer: pq.FileMetaData, uri: str) -> tuple[str, ...]:
    try:
        classes = tuple(json.loads(stored_classes(footer.metadata, uri)))
        check_classes(classes)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{uri}: {error}") from error
    return classes


def _splits_of(footer: pq.FileMetaData) -> set[str]:
    """The least and the greatest split of each group of rows."""
    found: set[str] = set()
    for number in range(footer.num_row_groups):
        group = footer.row_group(number)
        for index in range(group.num_columns):
            statistics = group.column(index).statistics
            if group.column(index).path_in_schema == "split" and statistics is not None and statistics.has_min_max:
                found |= {statistics.min, statistics.max}
    return found


def _read_splits(part: Part) -> set[str]:
    assert part.uri is not None
    with storage.opened(part.uri) as file:
        parquet = pq.ParquetFile(file)
        if "split" not in parquet.schema_arrow.names:
            return set()
        return {split for split in pc.unique(parquet.read(columns=["split"])["split"]).to_pylist() if split is not None}
