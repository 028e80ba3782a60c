"""How a text is a table: its encoding, its delimiter and its header.

They are found out where the first bytes or the header say them, else refused with the option that names them.
"""

import csv
import io
import re
from dataclasses import dataclass
from typing import NamedTuple

from raypipe.formats.quote import quote
from raypipe.formats.table.files import ending, unpacked_stream

DELIMITERS = (",", "\t", ";", "|")
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
"""First bytes that name an encoding."""

NAME_ENCODING = "Name its encoding, such as --encoding cp1252 for files of Windows programs, or save it as UTF-8"

FULL_WIDTH = {"\uff0c": "comma", "\uff1b": "semicolon"}
"""Characters of keyboards for Chinese and Japanese that look like those between cells, and are none."""

_BEGINNING = 64 * 1024
"""Bytes of a text that hold its header."""


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a text is a table, as far as it was said."""

    delimiter: str | None = None
    encoding: str | None = None


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
    delimiter, text = divided(text, table, dialect)
    names = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True), [])
    return Header(names, delimiter, encoding.removesuffix("-sig"))


def decoded(data: bytes, table: str, dialect: Dialect) -> str:
    """The text of a table's bytes.

    Raises:
        ValueError: they aren't of the encoding, or no text.
    """
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
            f"{table} isn't {encoding}: byte 0x{data[error.start]:02x} in line {line}. {NAME_ENCODING}"
        ) from error
    return text.removeprefix("\ufeff")


def full_width_hint(text: str) -> str:
    """The end of a message on text that isn't divided as expected; empty where it has no full-width characters."""
    found = next((one for one in FULL_WIDTH if one in text), None)
    if found is None:
        return ""
    kind, code = FULL_WIDTH[found], f"U+{ord(found):04X}"
    return f". It has the full-width {kind} {found} ({code}), which divides no cells: write a plain one in its place"


def divided(text: str, table: str, dialect: Dialect) -> tuple[str, str]:
    """The delimiter of a text, and the text without the line in which Excel names it."""
    if match := re.match(r'"?sep=([^\r\n])"?(?:\r\n?|\n)', text, re.IGNORECASE):
        return dialect.delimiter or match[1], text[match.end() :]
    usual = "\t" if ending(table) in (".tsv", ".tab") else None
    return dialect.delimiter or usual or _delimiter(text, table), text


def _encoding(start: bytes, dialect: Dialect) -> str:
    return dialect.encoding or next((name for mark, name in MARKS if start.startswith(mark)), "utf-8")


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
