"""Where outputs lie and what made them: `<out>/<stage>/<digest>/`, with a record beside them.

Another plan gives another folder, so outputs are never mixed, and what is finished is never computed again. Changing
beta changes the masks' digest and nothing before it.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.results import StreamSummary

RECORD_FILE = "record.json"
SUMMARY_FILE = "summary.json"


class MixedOutputs(ValueError):  # noqa: N818 - says what would happen, not that something is wrong
    """A folder holds outputs that were made otherwise."""


def open_folder(folder: str, provenance: dict[str, Any]) -> None:
    """Writes the record of an output folder, or checks it where there is one.

    Raises:
        MixedOutputs: if the folder's record says something else; the message says what differs.
    """
    uri = storage.join(folder, RECORD_FILE)
    new = json.loads(json.dumps(provenance, default=str))
    if storage.exists(uri):
        old = json.loads(storage.read_bytes(uri))
        if differing := _differences(old, new):
            raise MixedOutputs(
                f"{folder} was made otherwise: {'; '.join(differing)}. Give another `out`, or delete that folder"
            )
    else:
        storage.write_bytes_atomic(uri, json.dumps(new, indent=1).encode())


def read_summary(folder: str) -> dict[str, Any] | None:
    """The summary of a finished folder; None where it isn't finished."""
    uri = storage.join(folder, SUMMARY_FILE)
    if not storage.exists(uri):
        return None
    summary: dict[str, Any] = json.loads(storage.read_bytes(uri))
    return summary


def read_stream_summary(folder: str) -> StreamSummary | None:
    """The summary of a stream's folder; None where the stream hasn't come to its end.

    Raises:
        ValueError: as `stream_summary`.
    """
    found = read_summary(folder)
    return None if found is None else stream_summary(found, uri=storage.join(folder, SUMMARY_FILE))


def stream_summary(content: Mapping[str, Any], *, uri: str) -> StreamSummary:
    """A stream's summary as it was written.

    Args:
        content: its fields.
        uri: of the file that holds it.

    Raises:
        ValueError: another version of raypipe wrote it, with other fields.
    """
    needed = {each.name for each in fields(StreamSummary)}
    if content.keys() != needed:
        raise ValueError(
            f"{uri}: expected a stream's {', '.join(sorted(needed))}, found {', '.join(sorted(content))}: another "
            "version of raypipe wrote it. Delete this file: the same command then writes it anew"
        )
    return StreamSummary(**content)


def write_summary(folder: str, summary: dict[str, Any]) -> None:
    """Marks a folder finished; the last thing that is written into it."""
    storage.write_bytes_atomic(storage.join(folder, SUMMARY_FILE), json.dumps(summary, indent=1).encode())


def row_digests(rows: pa.Table, columns: Sequence[str]) -> pa.Array:
    """Digest (16 hex digits) of each row's values in some columns, whatever the order of the rows and columns."""
    names = sorted({"image_id", *columns})
    texts = [pa.chunked_array([_texts(chunk) for chunk in rows[name].chunks], pa.large_binary()) for name in names]
    joined = pc.binary_join_element_wise(*texts, _bytes(""))
    return pa.array([hashlib.blake2b(row, digest_size=8).hexdigest() for row in joined.to_pylist()], pa.string())


def _texts(values: pa.Array) -> pa.Array:
    """Each value as bytes with which those of no other value begin: their number stands before them.

    Arrow's functions do it for all rows at once: a million rows as Python's objects would take longer than all else
    that is read of them.
    """
    if pa.types.is_list(values.type):
        lengths = pc.list_value_length(values)
        ends = np.cumsum(pc.fill_null(lengths, 0).to_numpy(), dtype=np.int64)
        offsets = pa.array(np.concatenate([[0], ends]), pa.int64())
        texts = pc.binary_join(pa.LargeListArray.from_arrays(offsets, _texts(values.flatten())), _bytes(""))
    else:
        texts = values.cast(pa.large_string()).cast(pa.large_binary())
        lengths = pc.binary_length(texts)
    lengths = lengths.cast(pa.large_string()).cast(pa.large_binary())
    return pc.fill_null(pc.binary_join_element_wise(lengths, texts, _bytes(":")), _bytes("-"))


def _bytes(text: str) -> pa.Scalar:
    return pa.scalar(text.encode(), pa.large_binary())


def set_digest(rows: pa.Table, columns: Sequence[str]) -> str:
    """12 hex digits over a set of rows, whatever their order: what consumes the set as a whole depends on it."""
    return sum_digest([set_sum(rows, columns)])


def set_sum(rows: pa.Table, columns: Sequence[str]) -> tuple[int, int]:
    """The number of rows and the sum of their digests, which is the same however the rows are ordered and split."""
    return rows.num_rows, sum(int(value, 16) for value in row_digests(rows, columns).to_pylist())


def sum_digest(sums: Iterable[tuple[int, int]]) -> str:
    """The `set_digest` of rows from the sums of their parts."""
    number = total = 0
    for of_part, sum_of_part in sums:
        number += of_part
        total += sum_of_part
    return storage.digest([number, total])


def _differences(old: Any, new: Any, path: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [line for key in keys for line in _differences(old.get(key), new.get(key), f"{path}.{key}".strip("."))]
    return [] if old == new else [f"{path} was {old!r}, is {new!r}"]
