"""Reads cells of Parquet files, such as the images of a Hugging Face dataset.

Parquet can only be read by the column chunk: a row group's values of one column. A chunk is fetched by one request and
kept, because the next rows of a stream are in it, too. A large one isn't kept but read bit by bit, up to the last
wanted row.

Memory of a process: at most `KEPT` (64 MiB) of chunks kept; while a call lasts, twice as much for the chunks that it
fetches, or some pages of a large one; and what the call asks for.
"""

from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

import fsspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe.containers.fetch import Range, fetch_ranges
from raypipe.containers.footers import FileKey, Footer, file_key, read_footers
from raypipe.containers.place import Cell
from raypipe.containers.range_file import RangeFile

KEPT = 64 * 2**20
"""Bytes of chunks that a process keeps, those used last; a larger one is never kept."""
_PIECE = 8 * 2**20
"""Bytes of a request for a piece of a large chunk."""
_ROWS = 64
"""Rows of a large chunk that are decoded at a time."""


@dataclass(frozen=True)
class _Chunk:
    """A row group's values of one column."""

    file: FileKey
    group: int
    column: str
    footer: Footer = field(compare=False, repr=False)

    @property
    def path(self) -> str:
        """Of the file."""
        return self.file[1]

    @property
    def size(self) -> int:
        """Bytes, in the file or in memory, whichever is more."""
        return self.footer.size(self.group, self.footer.leaves[self.column])

    @property
    def range(self) -> Range:
        """Where it lies in the file."""
        return Range(self.path, *self.footer.chunk(self.group, self.footer.leaves[self.column]))


class _Wanted(NamedTuple):
    """A cell in its chunk."""

    name: str
    number: int
    """Row, counted from the row group's first."""


_kept: OrderedDict[_Chunk, pa.ChunkedArray] = OrderedDict()
_lock = Lock()


def read_cells(fs: fsspec.AbstractFileSystem, wanted: Mapping[str, tuple[str, Cell]]) -> dict[str, bytes | Exception]:
    """Returns each cell's bytes, or why there are none.

    Args:
        fs: where the files lie.
        wanted: the file's path and the place in it, by any name, which the results have, too.
    """
    found: dict[str, bytes | Exception] = {}
    keys: dict[str, FileKey] = {}
    for name, (path, _) in wanted.items():
        try:
            keys[name] = file_key(fs, path)
        except OSError as error:
            found[name] = error
    footers = read_footers(keys.values())
    chunks: dict[_Chunk, list[_Wanted]] = {}
    for name, key in keys.items():
        place = _locate(wanted[name][1], key, footers[key])
        if isinstance(place, Exception):
            found[name] = place
        else:
            chunk, number = place
            chunks.setdefault(chunk, []).append(_Wanted(name, number))
    for some in _batches(chunk for chunk in chunks if chunk.size <= KEPT):
        for chunk, values in _read_chunks(fs, some).items():
            for each in chunks[chunk]:
                found[each.name] = values if isinstance(values, Exception) else _value(values[each.number], chunk)
    for chunk, cells in chunks.items():
        if chunk.size > KEPT:
            found |= _read_large(chunk, cells)
    return found


def _locate(cell: Cell, key: FileKey, footer: Footer | Exception) -> tuple[_Chunk, int] | Exception:
    """The chunk that holds a cell, and the cell's number in it."""
    if isinstance(footer, Exception):
        return footer
    try:
        footer.check(cell)
    except ValueError as error:
        return ValueError(f"{key[1]}: {error}")
    group = bisect_right(footer.ends, cell.row)
    return _Chunk(key, group, cell.column, footer), cell.row - (footer.ends[group - 1] if group else 0)


def _batches(chunks: Iterable[_Chunk]) -> Iterator[list[_Chunk]]:
    """Chunks that are fetched at once."""
    some: list[_Chunk] = []
    for chunk in chunks:
        if some and sum(each.size for each in some) + chunk.size > KEPT:
            yield some
            some = []
        some.append(chunk)
    if some:
        yield some


def _read_chunks(fs: fsspec.AbstractFileSystem, chunks: Sequence[_Chunk]) -> dict[_Chunk, pa.ChunkedArray | Exception]:
    # Only one thread fetches at a time: another one mostly wants the same chunks.
    with _lock:
        values: dict[_Chunk, pa.ChunkedArray | Exception] = {}
        for chunk in chunks:
            if chunk in _kept:
                _kept.move_to_end(chunk)
                values[chunk] = _kept[chunk]
        missing = [chunk for chunk in chunks if chunk not in values]
        contents = fetch_ranges(fs, [chunk.range for chunk in missing])
        for chunk in missing:
            content = contents.pop(0)  # so that it is freed as soon as it is decoded
            values[chunk] = content if isinstance(content, Exception) else _decode(fs, chunk, content)
        for chunk in missing:
            if isinstance(array := values[chunk], pa.ChunkedArray):
                _kept[chunk] = array
        while _kept and sum(array.nbytes for array in _kept.values()) > KEPT:
            _kept.popitem(last=False)
        return values


def _decode(fs: fsspec.AbstractFileSystem, chunk: _Chunk, content: bytes) -> pa.ChunkedArray | Exception:
    file = RangeFile(fs, chunk.path, chunk.range.start, content)
    try:
        parquet = pq.ParquetFile(file, metadata=chunk.footer.metadata, page_checksum_verification=True)
        return _leaf(parquet.read_row_group(chunk.group, columns=[chunk.column]).column(0))
    except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
        return file.failure or _damaged(chunk, error)


def _read_large(chunk: _Chunk, wanted: Sequence[_Wanted]) -> dict[str, bytes | Exception]:
    """Reads a chunk that is too large to be kept, from its start to the last wanted row."""
    file = RangeFile(chunk.file[0], chunk.path)
    due = sorted(wanted, key=lambda each: each.number)
    found: dict[str, bytes | Exception] = {}
    options = {"buffer_size": _PIECE, "pre_buffer": False, "page_checksum_verification": True}
    try:
        parquet = pq.ParquetFile(file, metadata=chunk.footer.metadata, **options)
        start = 0
        for batch in parquet.iter_batches(_ROWS, row_groups=[chunk.group], columns=[chunk.column], use_threads=False):
            values = _leaf(pa.chunked_array([batch.column(0)]))
            while due and due[0].number < start + len(values):
                each = due.pop(0)
                found[each.name] = _value(values[each.number - start], chunk)
            start += len(values)
            if not due:
                break
    except (pa.ArrowException, OSError) as error:
        found |= {each.name: file.failure or _damaged(chunk, error) for each in due}
    return found


def _leaf(values: pa.ChunkedArray) -> pa.ChunkedArray:
    """The values of the one field that was read."""
    while pa.types.is_struct(values.type):
        values = pc.struct_field(values, [0])
    return values


def _value(value: pa.Scalar, chunk: _Chunk) -> bytes | Exception:
    content: bytes | None = value.as_py()
    if content is None:
        return ValueError(
            f"{chunk.path}: column {chunk.column!r} is null here: the image isn't in the file. If another column "
            "has paths of images, `raypipe import table` reads those"
        )
    return content


def _damaged(chunk: _Chunk, error: Exception) -> ValueError:
    return ValueError(f"{chunk.path}: column {chunk.column!r} is damaged in row group {chunk.group} ({error})")
