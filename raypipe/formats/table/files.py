"""Reads tables: CSV and its kin, JSON lines and Parquet, compressed or not, one file or several.

Endings choose the format. Encoding, delimiter and compression are found out where the bytes say them, else refused with
the option that names them.
"""

import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage, uri
from raypipe.formats.listing import is_hidden
from raypipe.formats.quote import quote

TEXTS = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUETS = (".parquet", ".pq")
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
PACKED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"))
"""First bytes of compressed files, which may have lost their ending."""

DELIMITERS = (",", "\t", ";", "|")
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""First bytes that name an encoding."""

LONGEST_FIELD = 64 * 2**20
"""Characters of a cell at most."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a text is a table, as far as it was said."""

    delimiter: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Record:
    """A row of a table."""

    values: dict[str, Any]
    place: str
    """Where it stands: "labels.csv, line 7"."""


def find_tables(source: str) -> list[str]:
    """Returns the tables that a URI names: a file, or those in a folder or below it.

    Raises:
        FileNotFoundError: there is none.
        ValueError: they have several formats.
    """
    if uri.protocol(source) in ("http", "https"):
        return [source]  # whose servers name no files
    found = [uri.absolute(one) for one in storage.list_files(source)]
    if found == [source]:
        return found
    if not found and not storage.exists(source):
        raise FileNotFoundError(f"there is no table {source}")
    tables = [one for one in found if ending(one) in (*TEXTS, *JSON_LINES, *PARQUETS) and not _is_hidden(one, source)]
    if not tables:
        raise FileNotFoundError(f"the folder {source} holds no table: no .csv, .jsonl or .parquet")
    if len(kinds := sorted({ending(one) for one in tables})) > 1:
        raise ValueError(f"the folder {source} holds tables of several formats ({', '.join(kinds)}): name one of them")
    return tables


def folder_of(source: str) -> str:
    """The folder that names in a table count from: the one that it lies in, or the folder of tables itself.

    A folder with the name of a table, such as Spark's `labels.parquet/`, is a table that lies in the folder above.
    """
    is_table = ending(source) in (*TEXTS, *JSON_LINES, *PARQUETS)
    return uri.parent(source) if is_table or storage.list_files(source) == [source] else source


def _is_hidden(table: str, folder: str) -> bool:
    """Whether a part of a table's path is hidden, or one that Spark writes beside tables (`_SUCCESS`)."""
    path = uri.relative(table, folder) or uri.name_of(table)
    return is_hidden(path) or any(part.startswith("_") for part in path.split("/"))


def ending(table: str) -> str:
    """The ending of a table without that of its compression."""
    name = uri.name_of(table).lower()
    for suffix in COMPRESSED:
        name = name.removesuffix(suffix)
    return uri.suffix_of(name)


def read_records(table: str, dialect: Dialect) -> Iterator[Record]:
    """Yields a table's rows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read in the format of its ending.
    """
    kind = ending(table)
    data = _unpacked(table)
    if kind in PARQUETS or data[:4] == b"PAR1":
        yield from _read_parquet(data, table)
    elif kind in JSON_LINES:
        yield from _read_json(_decoded(data, table, dialect), table)
    elif kind in TEXTS:
        yield from _read_csv(_decoded(data, table, dialect), table, dialect)
    else:
        known = ", ".join((*TEXTS, *JSON_LINES, *PARQUETS))
        raise ValueError(f"expected a table that ends with {known}, perhaps with .gz, .zst, .bz2 or .xz, got {table}")


def parquet_schema(table: str) -> pa.Schema | None:
    """The schema of a Parquet table; None for others."""
    if ending(table) not in PARQUETS:
        return None
    try:
        return pq.read_schema(pa.BufferReader(_unpacked(table)))
    except pa.ArrowException as error:
        raise ValueError(f"{table} is not a Parquet file, or a damaged one ({str(error)[:200]})") from error


def _unpacked(table: str) -> bytes:
    data = storage.read_bytes(table)
    kind = COMPRESSED.get(uri.suffix_of(table)) or next((kind for mark, kind in PACKED if data.startswith(mark)), None)
    if kind is None:
        return data
    try:
        if kind == "xz":
            import lzma

            return lzma.decompress(data)
        stream = pa.CompressedInputStream(pa.BufferReader(data), kind)
        content: bytes = stream.read()
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{table} can't be unpacked as {kind}: {str(error)[:200]}") from error
    except Exception as error:
        if type(error).__name__ != "LZMAError":
            raise
        raise ValueError(f"{table} can't be unpacked as xz: {str(error)[:200]}") from error
    return content


def _decoded(data: bytes, table: str, dialect: Dialect) -> str:
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise ValueError(f"{table} is a workbook or a zip, whatever its name says: save it as CSV")
    encoding = _encoding(data, dialect)
    if encoding == "utf-8" and b"\0" in data[:1000]:
        raise ValueError(f"{table} isn't utf-8, for it has null bytes: name its encoding (--encoding utf-16-le)")
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise ValueError(f"--encoding: there is no encoding {encoding!r}") from error
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{table} isn't {encoding}: byte 0x{data[error.start]:02x} in line {line}. Name its encoding, such as "
            "--encoding cp1252 for files of Windows programs, or save it as UTF-8"
        ) from error
    return text.removeprefix("\ufeff")


def _read_csv(text: str, table: str, dialect: Dialect) -> Iterator[Record]:
    delimiter, text = _divided(text, table, dialect)
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
                    f"cell that holds {delimiter!r} is written in quotes"
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


@contextmanager
def unpacked_stream(table: str) -> Iterator[Any]:
    """Opens a table as a stream of its unpacked bytes.

    Raises:
        FileNotFoundError: there is no such file.
    """
    kind = COMPRESSED.get(uri.suffix_of(table))
    with storage.opened(table) as file:
        if kind is None:
            yield file
        elif kind == "xz":
            import lzma

            with lzma.open(file) as stream:
                yield stream
        else:
            yield pa.CompressedInputStream(file, kind)


class Header(NamedTuple):
    """How a table of text begins."""

    names: list[str]
    """As they stand there, with spaces."""
    delimiter: str
    encoding: str


def read_header(table: str, dialect: Dialect) -> Header:
    """Reads the header of a table of text, and no more.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the header doesn't tell the delimiter.
    """
    with unpacked_stream(table) as stream:
        start = stream.read(_BEGINNING)
    encoding = _encoding(start, dialect)
    text = start.decode(encoding, errors="replace").removeprefix("\ufeff")
    delimiter, text = _divided(text, table, dialect)
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True), [])
    return Header(names, delimiter, encoding.removesuffix("-sig"))


_BEGINNING = 64 * 1024
"""Bytes of a text that hold its header."""


def _encoding(start: bytes, dialect: Dialect) -> str:
    return dialect.encoding or next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")


def _divided(text: str, table: str, dialect: Dialect) -> tuple[str, str]:
    """The delimiter of a text, and the text without the line in which Excel names it."""
    if match := re.match(r'"?sep=([^\r\n])"?(?:\r\n?|\n)', text, re.IGNORECASE):
        return dialect.delimiter or match[1], text[match.end() :]
    usual = "\t" if ending(table) in (".tsv", ".tab") else None
    return dialect.delimiter or usual or _delimiter(text, table), text


def _delimiter(text: str, table: str) -> str:
    """The delimiter of a text's header."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    bare = re.sub(r'"[^"]*"', "", first)
    counts = {delimiter: bare.count(delimiter) for delimiter in DELIMITERS}
    most = max(counts.values())
    likely = [delimiter for delimiter, number in counts.items() if number == most]
    if most and len(likely) > 1:
        raise ValueError(
            f"{table}: {quote(first)} may be divided by {' or '.join(map(repr, likely))}: name the --delimiter"
        )
    return likely[0]


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
