"""Cuts a stream's rows into blocks, each of which one process gets."""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.containers.uris import row_groups

LARGEST = 4
"""A block may have so many times the rows that are asked for, lest a row group is cut."""


def cut(rows: pa.Table, rows_per_block: int) -> Iterator[pa.Table]:
    """Yields the rows in blocks.

    Images in Parquet can only be read by the row group. A block ends where one ends, as far as that doesn't make it too
    large, so that no two processes read the same.

    Args:
        rows: with `image_uri`, or without.
        rows_per_block: rows of a block where nothing speaks against it.
    """
    ends = _ends(rows)
    start = 0
    while start < rows.num_rows:
        place = int(np.searchsorted(ends, min(start + rows_per_block, rows.num_rows)))
        end = int(ends[place])
        if end - start > LARGEST * rows_per_block:  # before this row group, or else in it
            before = int(ends[place - 1]) if place else start
            end = before if before > start else start + rows_per_block
        yield rows.slice(start, end - start)
        start = end


_PACKED = "rows_of_a_block"


def pack(table: pa.Table) -> pa.Table:
    """A table of one row that holds a table: it stays in one piece wherever it travels."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    packed = sink.getvalue()
    # Not `pa.array([memoryview(packed)])`: of a memoryview pyarrow 26 keeps the memory while the process lives.
    ends = pa.py_buffer(np.array([0, packed.size], np.int64))
    return pa.table({_PACKED: pa.Array.from_buffers(pa.large_binary(), 1, [None, ends, packed])})


def unpack(table: pa.Table) -> pa.Table:
    """The table that `pack` was given; any other as it is."""
    if table.column_names != [_PACKED]:
        return table
    return pa.concat_tables(pa.ipc.open_stream(data.as_buffer()).read_all() for data in table[_PACKED])


def _ends(rows: pa.Table) -> NDArray[np.int64]:
    """Numbers of rows after which a block may end, ascending; the last is the number of all."""
    number = rows.num_rows
    if "image_uri" not in rows.column_names or number < 2:
        return np.arange(1, number + 1)
    groups = row_groups(rows["image_uri"]).combine_chunks()
    same = pc.fill_null(pc.equal(groups[1:], groups[:-1]), fill_value=False).to_numpy(zero_copy_only=False)
    return np.append(np.flatnonzero(~same) + 1, number)
