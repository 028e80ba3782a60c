"""Reads cells of Parquet files, such as the images of a Hugging Face dataset.

Parquet can only be read by the column chunk: a row group's values of one column. A chunk is fetched by one request and
kept, because the next rows of a stream are in it, too. A large one isn't kept but read bit by bit, up to the last
wanted row.

Memory of a process: at most `KEPT` (64 MiB) of chunks kept; while a call lasts, twice as much for the chunks that it
fetches, or some pages of a large one; and what the call asks for.
"""

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
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


class _Chunk(NamedTuple):
    file: FileKey
    group: int
    column: str


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
        footer, cell = footers[key], wanted[name][1]
        if isinstance(footer, Exception):
            found[name] = footer
            continue
        try:
            footer.column(cell)
        except ValueError as error:
            found[name] = ValueError(f"{key[1]}: {error}")
            continue
        group = next(group for group, end in enumerate(footer.ends) if cell.row < end)
        number = cell.row - (footer.ends[group - 1] if group else 0)
        chunks.setdefault(_Chunk(key, group, cell.column), []).append(_Wanted(name, number))
    sizes = {chunk: _size(footers, chunk) for chunk in chunks}
    for some in _batches([chunk for chunk in chunks if sizes[chunk] <= KEPT], sizes):
        for chunk, values in _read_chunks(fs, some, footers).items():
            for each in chunks[chunk]:
                found[each.name] = values if isinstance(values, Exception) else _value(values[each.number], chunk)
    for chunk in chunks:
        if sizes[chunk] > KEPT:
            found |= _read_large(chunk, footers, chunks[chunk])
    return found


def _footer(footers: Mapping[FileKey, Footer | Exception], chunk: _Chunk) -> Footer:
    footer = footers[chunk.file]
    assert isinstance(footer, Footer)
    return footer


def _size(footers: Mapping[FileKey, Footer | Exception], chunk: _Chunk) -> int:
    footer = _footer(footers, chunk)
    column = footer.metadata.row_group(chunk.group).column(footer.leaves[chunk.column])
    return max(int(column.total_compressed_size), int(column.total_uncompressed_size))


def _batches(chunks: Sequence[_Chunk], sizes: Mapping[_Chunk, int]) -> Iterator[list[_Chunk]]:
    """Chunks that are fetched at once."""
    some: list[_Chunk] = []
    for chunk in chunks:
        if some and sum(sizes[each] for each in some) + sizes[chunk] > KEPT:
            yield some
            some = []
        some.append(chunk)
    if some:
        yield some


def _read_chunks(
    fs: fsspec.AbstractFileSystem, chunks: Sequence[_Chunk], footers: Mapping[FileKey, Footer | Exception]
) -> dict[_Chunk, pa.ChunkedArray | Exception]:
    # Only one thread fetches at a time: another one mostly wants the same chunks.
    with _lock:
        values: dict[_Chunk, pa.ChunkedArray | Exception] = {}
        for chunk in chunks:
            if chunk in _kept:
                _kept.move_to_end(chunk)
                values[chunk] = _kept[chunk]
        missing = [chunk for chunk in chunks if chunk not in values]
        ranges = [
            Range(
                chunk.file[1], *_footer(footers, chunk).chunk(chunk.group, _footer(footers, chunk).leaves[chunk.column])
            )
            for chunk in missing
        ]
        contents = fetch_ranges(fs, ranges)
        for chunk, each in zip(missing, ranges, strict=True):
            content = contents.pop(0)  # so that it is freed as soon as it is decoded
            if isinstance(content, Exception):
                values[chunk] = content
                continue
            footer = _footer(footers, chunk)
            file = RangeFile(fs, each.path, each.start, content)
            values[chunk] = _decode(file, chunk, footer)
        for chunk in missing:
            if isinstance(array := values[chunk], pa.ChunkedArray):
                _kept[chunk] = array
        while _kept and sum(array.nbytes for array in _kept.values()) > KEPT:
            _kept.popitem(last=False)
        return values


def _decode(file: RangeFile, chunk: _Chunk, footer: Footer) -> pa.ChunkedArray | Exception:
    try:
        parquet = pq.ParquetFile(file, metadata=footer.metadata, page_checksum_verification=True)
        return _leaf(parquet.read_row_group(chunk.group, columns=[chunk.column]).column(0))
    except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
        return file.failure or _damaged(chunk, error)


def _read_large(
    chunk: _Chunk, footers: Mapping[FileKey, Footer | Exception], wanted: Sequence[_Wanted]
) -> dict[str, bytes | Exception]:
    """Reads a chunk that is too large to be kept, from its start to the last wanted row."""
    footer = _footer(footers, chunk)
    fs, path, _ = chunk.file
    file = RangeFile(fs, path)
    due = sorted(wanted, key=lambda each: each.number)
    found: dict[str, bytes | Exception] = {}
    try:
        parquet = pq.ParquetFile(
            file, metadata=footer.metadata, buffer_size=_PIECE, pre_buffer=False, page_checksum_verification=True
        )
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
            f"{chunk.file[1]}: column {chunk.column!r} is null here: the image isn't in the file. If another column "
            "has paths of images, `raypipe import table` reads those"
        )
    return content


def _damaged(chunk: _Chunk, error: Exception) -> ValueError:
    return ValueError(f"{chunk.file[1]}: column {chunk.column!r} is damaged in row group {chunk.group} ({error})")
