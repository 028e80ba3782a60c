"""Reads the rows of tables: CSV and its kin, JSON lines and Parquet."""

import csv
import io
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe.formats.quote import quote
from raypipe.formats.table.dialect import Dialect, decoded, divided, full_width_hint
from raypipe.formats.table.files import JSON_LINES, PARQUETS, TEXTS, ending, unpacked

LONGEST_FIELD = 64 * 2**20
"""Characters of a cell at most."""


@dataclass(frozen=True)
class Record:
    """A row of a table."""

    values: dict[str, Any]
    place: str
    """Where it stands: "labels.csv, line 7"."""


def read_records(table: str, dialect: Dialect) -> Iterator[Record]:
    """Yields a table's rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read in the format of its ending.
    """
    kind = ending(table)
    data = unpacked(table)
    if kind in PARQUETS or data[:4] == b"PAR1":
        yield from _read_parquet(data, table)
    elif kind in JSON_LINES:
        yield from _read_json(decoded(data, table, dialect), table)
    elif kind in TEXTS:
        yield from _read_csv(decoded(data, table, dialect), table, dialect)
    else:
        known = ", ".join((*TEXTS, *JSON_LINES, *PARQUETS))
        raise ValueError(f"expected a table that ends with {known}, perhaps with .gz, .zst, .bz2 or .xz, got {table}")


def parquet_schema(table: str) -> pa.Schema | None:
    """The schema of a Parquet table; None for others."""
    if ending(table) not in PARQUETS:
        return None
    try:
        return pq.read_schema(pa.BufferReader(unpacked(table)))
    except pa.ArrowException as error:
        raise ValueError(f"{table} is not a Parquet file, or a damaged one ({str(error)[:200]})") from error


def _read_csv(text: str, table: str, dialect: Dialect) -> Iterator[Record]:
    delimiter, text = divided(text, table, dialect)
    if len(delimiter) != 1:
        raise ValueError(f"--delimiter is one character, got {quote(delimiter)} (a tab is $'\\t' in a shell)")
    csv.field_size_limit(min(LONGEST_FIELD, sys.maxsize))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _header(cells, table)
                continue
            place = f"{table}, line {reader.line_num}"
            if len(cells) > len(header) and not any(cell.strip() for cell in cells[len(header) :]):
                cells = cells[: len(header)]  # delimiters at a line's end
            if len(cells) != len(header):
                raise ValueError(
                    f"{place}: expected {len(header)} cells, as in the header, got {len(cells)}: {quote(cells)}. A "
                    f"cell that holds {delimiter!r} is written in quotes{full_width_hint(''.join(cells))}"
                )
            yield Record(dict(zip(header, cells, strict=True)), place)
    except csv.Error as error:
        raise ValueError(f"{table}, after line {reader.line_num}: {error}") from error


def _header(cells: Sequence[str], table: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    while names and not names[-1]:
        names.pop()
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"{table} has several columns {quote(twice[0])}: rename them")
    return names


def _read_json(text: str, table: str) -> Iterator[Record]:
    start = text.lstrip()[:1]
    if start == "[":
        yield from _read_json_list(text, table)
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{table}, line {number}"
        try:
            record = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            if number == 1 and start == "{" and '"annotations"' in text:
                raise ValueError(f"{table} isn't JSON lines; a COCO file is read by `raypipe import coco`") from error
            raise ValueError(f"{place}: not JSON ({error}); one object a line is needed") from error
        if isinstance(record, dict) and {"images", "categories"} <= set(record):
            raise ValueError(f"{table} is a COCO file: `raypipe import coco` reads it")
        yield Record(_object(record, place), place)


def _read_json_list(text: str, table: str) -> Iterator[Record]:
    try:
        records = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{table}: not JSON ({error})") from error
    for number, record in enumerate(records):
        place = f"{table}, object {number} (counted from 0)"
        yield Record(_object(record, place), place)


def _object(record: Any, place: str) -> dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f'{place}: expected an object such as {{"image_uri": …, "labels": […]}}, got {quote(record)}')  # noqa: TRY004 - the file's mistake
    return {name.strip(): value for name, value in record.items()}


def _read_parquet(data: bytes, table: str) -> Iterator[Record]:
    try:
        content = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{table} is not a Parquet file, or a damaged one ({str(error)[:200]})") from error
    number = 0
    for batch in content.to_batches(max_chunksize=10_000):
        for record in batch.to_pylist():
            yield Record(
                {name.strip(): value for name, value in record.items()}, f"{table}, row {number} (counted from 0)"
            )
            number += 1
