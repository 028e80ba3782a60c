"""Places in containers: what comes after the # of a URI that names a tar's member or a Parquet file's cell.

    s3://bucket/train-0000.tar#offset=1536&length=10234&type=jpg
    s3://bucket/part-0.parquet#column=image.bytes&row=17&group=0&type=png

`type`, the ending that a file of this content would have, and `group`, the row group that holds the row, may be left
out. Only these two forms are places: any other # belongs to a file's name.
"""

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

_TYPE = r"(?:&type=(?P<type>[A-Za-z0-9]{1,8}))?"
_MEMBER = re.compile(r"(?P<container>.+)#offset=(?P<offset>\d{1,18})&length=(?P<length>\d{1,18})" + _TYPE, re.DOTALL)
_CELL = re.compile(
    r"(?P<container>.+)#column=(?P<column>[^#&]+)&row=(?P<row>\d{1,18})(?:&group=(?P<group>\d{1,9}))?" + _TYPE,
    re.DOTALL,
)


@dataclass(frozen=True)
class Member:
    """Bytes of a container, such as a member of a tar."""

    offset: int
    length: int

    @property
    def end(self) -> int:
        """Offset of the first byte after it."""
        return self.offset + self.length


@dataclass(frozen=True)
class Cell:
    """A value of a Parquet file."""

    column: str
    """Name of the column; a dotted one is a field of a struct."""
    row: int
    """Counted from 0, over the whole file."""


Place = Member | Cell


def split_place(uri: str) -> tuple[str, Place | None]:
    """Returns the container's URI and the place in it; a file of its own has none."""
    if match := _MEMBER.fullmatch(uri):
        return match["container"], Member(int(match["offset"]), int(match["length"]))
    if match := _CELL.fullmatch(uri):
        return match["container"], Cell(unquote(match["column"]), int(match["row"]))
    return uri, None


def content_type(uri: str) -> str | None:
    """Returns the ending that a file of a place's content would have, as far as the URI says it."""
    match = _MEMBER.fullmatch(uri) or _CELL.fullmatch(uri)
    return match["type"] if match else None


def member_uri(container: str, offset: int, length: int, *, content: str | None = None) -> str:
    """Returns the URI of a container's bytes.

    Args:
        container: the container's URI.
        offset: of the first byte.
        length: in bytes.
        content: the ending that a file of these bytes would have, such as "jpg".
    """
    return f"{container}#offset={offset}&length={length}{_type(content)}"


def cell_uri(container: str, column: str, row: int, *, group: int, content: str | None = None) -> str:
    """Returns the URI of a Parquet file's value.

    Args:
        container: the file's URI.
        column: as of `Cell`.
        row: as of `Cell`.
        group: the row group that holds the row.
        content: as of `member_uri`.
    """
    return f"{container}#column={quote(column, safe='')}&row={row}&group={group}{_type(content)}"


def _type(content: str | None) -> str:
    return f"&type={content}" if content and re.fullmatch(r"[A-Za-z0-9]{1,8}", content) else ""
