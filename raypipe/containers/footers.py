"""Reads what Parquet files say of themselves: each file's footer once a process, by one request."""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from threading import Lock
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.containers.fetch import Range, fetch_ranges
from raypipe.containers.place import Cell

_TAIL = 64 * 2**10
"""Bytes of a file's end, in which most footers fit."""
_ENDING = 8
"""Bytes after the footer: its length and the letters PAR1."""
_FOOTERS = 64
"""Footers that a process keeps, those used last."""

FileKey = tuple[fsspec.AbstractFileSystem, str, Any]
"""Filesystem, path and, for a local file, when it was written: another file in its place is seen."""


@dataclass(frozen=True)
class Footer:
    """Where a Parquet file's values are."""

    metadata: pq.FileMetaData
    leaves: dict[str, int]
    """Number of each column that holds values, by its dotted path."""
    ends: list[int]
    """For each row group, the number of the first row after it."""

    @classmethod
    def of(cls, metadata: pq.FileMetaData) -> "Footer":
        """What the metadata say."""
        leaves = {metadata.schema.column(index).path: index for index in range(metadata.num_columns)}
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        return cls(metadata, leaves, list(accumulate(sizes)))

    def check(self, cell: Cell) -> None:
        """Makes sure that a cell can be read.

        Raises:
            ValueError: there is no such column, it doesn't hold bytes, or the file has too few rows.
        """
        if cell.column not in self.leaves:
            raise ValueError(f"no column {cell.column!r}; there are {', '.join(self.leaves)}")
        schema = self.metadata.schema.column(self.leaves[cell.column])
        is_text = str(schema.logical_type.type) == "STRING"
        if schema.physical_type != "BYTE_ARRAY" or schema.max_repetition_level > 0 or is_text:
            kind = "lists" if schema.max_repetition_level > 0 else "text" if is_text else schema.physical_type
            raise ValueError(f"column {cell.column!r} holds {kind}; expected the bytes of an image file in each row")
        if cell.row >= self.metadata.num_rows:
            raise ValueError(f"no row {cell.row} (counted from 0): there are {self.metadata.num_rows}")

    def size(self, group: int, column: int) -> int:
        """Bytes of a row group's values of a column, in the file or in memory, whichever is more."""
        chunk = self.metadata.row_group(group).column(column)
        return max(int(chunk.total_compressed_size), int(chunk.total_uncompressed_size))

    def chunk(self, group: int, column: int) -> tuple[int, int]:
        """Start and end of a row group's values of a column, in bytes of the file."""
        chunk = self.metadata.row_group(group).column(column)
        start = chunk.data_page_offset
        if chunk.has_dictionary_page and chunk.dictionary_page_offset:
            start = min(start, chunk.dictionary_page_offset)
        return start, start + chunk.total_compressed_size


_footers: OrderedDict[FileKey, Footer] = OrderedDict()
_lock = Lock()


def file_key(fs: fsspec.AbstractFileSystem, path: str) -> FileKey:
    """What a file is known by in this process.

    Raises:
        FileNotFoundError: (or another OSError) a local file can't be looked at.
    """
    return fs, path, fs.info(path)["mtime"] if "file" in fs.protocol else None


def read_footers(keys: Iterable[FileKey]) -> dict[FileKey, Footer | Exception]:
    """Returns each file's footer, or why it can't be read; all keys are of one filesystem."""
    keys = list(dict.fromkeys(keys))
    with _lock:
        known: dict[FileKey, Footer | Exception] = {key: _footers[key] for key in keys if key in _footers}
    unknown = [key for key in keys if key not in known]
    if unknown:
        fs = unknown[0][0]
        tails = fetch_ranges(fs, [Range(path, -_TAIL, None) for _, path, _ in unknown])
        known |= {key: _parse(fs, key[1], tail) for key, tail in zip(unknown, tails, strict=True)}
    with _lock:
        for key in keys:
            if isinstance(footer := known[key], Footer):
                _footers[key] = footer
                _footers.move_to_end(key)
        while len(_footers) > _FOOTERS:
            _footers.popitem(last=False)
    return known


def _parse(fs: fsspec.AbstractFileSystem, path: str, tail: bytes | Exception) -> Footer | Exception:
    if isinstance(tail, Exception):
        return tail
    if len(tail) < _ENDING or tail[-4:] != b"PAR1":
        return ValueError(f"{path} is no Parquet file, or it was cut off")
    length = int.from_bytes(tail[-_ENDING:-4], "little") + _ENDING
    if length > len(tail) == _TAIL:
        [tail] = fetch_ranges(fs, [Range(path, -length, None)])
        if isinstance(tail, Exception):
            return tail
    try:
        return Footer.of(pq.read_metadata(pa.BufferReader(tail)))
    except (pa.ArrowException, OSError) as error:
        return ValueError(f"{path}: the Parquet file's footer is damaged ({error})")
