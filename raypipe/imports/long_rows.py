"""Reads tables of one tag a row, some rows at a time: which columns hold image, label and confidence."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.manifest import nearest
from raypipe.formats.labels import PLAIN, LabelReader
from raypipe.formats.table.dialect import NAME_ENCODING, Dialect, full_width_hint, read_header
from raypipe.formats.table.files import PARQUETS, TEXTS, ending, unpacked_stream
from raypipe.formats.table.read import CONFIDENCE_COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, find_column
from raypipe.formats.table.records import read_records

LONG_IMAGE_COLUMNS = (*IMAGE_COLUMNS, "imageid", "image_id", "photo_id", "id")
LONG_LABEL_COLUMNS = (*LABEL_COLUMNS, "tag", "labelname", "label_name", "name")

BYTES_AT_A_TIME = 4 * 2**20
"""Of a text that are parsed at a time."""
RECORDS_AT_A_TIME = 50_000

_NO_NUMBER = re.compile(r"Row #(?P<row>\d+): CSV conversion error to double: invalid value '(?P<value>.*)'", re.DOTALL)
"""What pyarrow says of a cell in a column of numbers; rows count from 1, the header's."""


@dataclass(frozen=True, kw_only=True)
class LongOptions:
    """How tables of one tag a row are read; None finds a column by its usual names."""

    root: str
    """Absolute URI of the folder that images' names count from."""
    image_column: str | None = None
    label_column: str | None = None
    confidence_column: str | None = None
    min_confidence: float | None = None
    """Tags of less are left out, and those of 0 or less in any case: such a tag says that the class isn't there."""
    image_suffix: str = ""
    """What is appended to images' names."""
    dialect: Dialect = field(default_factory=Dialect)
    labels: LabelReader = PLAIN


def tag_batches(table: str, options: LongOptions) -> Iterator[pa.RecordBatch]:
    """Image, label and, if there is one, confidence of the rows of a table, some at a time."""
    kind = ending(table)
    if kind in PARQUETS:
        with storage.opened(table) as file:
            try:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                columns = _columns(parquet.schema_arrow.names, table, options)
                for batch in parquet.iter_batches(batch_size=RECORDS_AT_A_TIME, columns=columns):
                    yield batch.select(columns)
            except pa.ArrowException as error:
                raise ValueError(f"{table} is not a Parquet file, or a damaged one ({str(error)[:200]})") from error
    elif kind in TEXTS:
        yield from _csv_batches(table, options)
    else:
        yield from _record_batches(table, options)


def _csv_batches(table: str, options: LongOptions) -> Iterator[pa.RecordBatch]:
    header = read_header(table, options.dialect)
    names = {name.strip(): name for name in header.names}
    columns = [names[name] for name in _columns(list(names), table, options)]
    kinds = dict(zip(columns, (pa.string(), pa.string(), pa.float64()), strict=False))
    with unpacked_stream(table) as stream:
        try:
            reader = pa.csv.open_csv(
                stream,
                read_options=pa.csv.ReadOptions(
                    block_size=BYTES_AT_A_TIME, encoding=header.encoding, use_threads=False
                ),
                parse_options=pa.csv.ParseOptions(delimiter=header.delimiter, newlines_in_values=True),
                convert_options=pa.csv.ConvertOptions(
                    column_types=kinds, include_columns=columns, strings_can_be_null=False
                ),
            )
            yield from reader
        except pa.ArrowInvalid as error:
            if (cell := _NO_NUMBER.search(str(error))) is not None:
                raise ValueError(
                    f"{table}, row {cell['row']} without empty ones, column {columns[-1]!r}: {cell['value'][:100]!r} "
                    "is no number. Mend the cell, or empty it: a tag without a confidence counts as sure"
                ) from error
            if "invalid UTF8" in str(error):
                raise ValueError(f"{table} isn't {header.encoding}. {NAME_ENCODING}") from error
            raise ValueError(
                f"{table} can't be read as a CSV with {header.delimiter!r} between cells: {str(error)[:300]}"
                f"{full_width_hint(str(error))}"
            ) from error


def _record_batches(table: str, options: LongOptions) -> Iterator[pa.RecordBatch]:
    columns: list[str] | None = None
    rows: list[list[Any]] = []
    for record in read_records(table, options.dialect):
        columns = columns or _columns(list(record.values), table, options)
        rows.append([record.values.get(name) for name in columns])
        if len(rows) == RECORDS_AT_A_TIME:
            yield _record_batch(rows, columns, table)
            rows = []
    if columns and rows:
        yield _record_batch(rows, columns, table)


def _record_batch(rows: list[list[Any]], columns: list[str], table: str) -> pa.RecordBatch:
    try:
        return pa.record_batch(
            [
                pa.array([row[index] if index == 2 else _text(row[index]) for row in rows])
                for index in range(len(columns))
            ],
            names=columns,
        )
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise ValueError(f"{table}: a cell is of another kind than those before ({str(error)[:200]})") from error


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _columns(names: list[str], table: str, options: LongOptions) -> list[str]:
    found, errors = [], {}
    for option, given, usual in (
        ("--image-column", options.image_column, LONG_IMAGE_COLUMNS),
        ("--label-column", options.label_column, LONG_LABEL_COLUMNS),
    ):
        try:
            found.append(find_column(names, given, usual, option, table))
        except ValueError as error:
            errors[option] = str(error)
    known = {name.lower(): name for name in names}
    confidence = options.confidence_column or next((known[one] for one in CONFIDENCE_COLUMNS if one in known), None)
    if confidence is not None and confidence not in names:
        errors["--confidence-column"] = (
            f"{table} has no column {confidence!r} (--confidence-column){nearest(confidence, names)}"
        )
    if confidence is None and options.min_confidence is not None:
        errors["--confidence-column"] = f"{table} has no column of confidences: name it (--confidence-column)"
    if errors:
        first, *more = errors
        raise ValueError(errors[first] + (f". It needs {' and '.join(more)}, too" if more else ""))
    if found[0] == found[1]:
        raise ValueError(f"{table}: the column {found[0]!r} can't hold both images and labels")
    return [*found, confidence] if confidence else found
