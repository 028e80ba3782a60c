"""Finds tables and unpacks them: one file or several, compressed or not; endings say their formats."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from raypipe import storage, uri
from raypipe.formats.listing import is_hidden
from raypipe.messages.nearest import nearest_name

TEXTS = (".csv", ".tsv", ".tab", ".txt")
JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUETS = (".parquet", ".pq")
COMPRESSED = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
PACKED = ((b"\x1f\x8b", "gzip"), (b"\x28\xb5\x2f\xfd", "zstd"), (b"BZh", "bz2"), (b"\xfd7zXZ\x00", "xz"))
"""First bytes of compressed files, which may have lost their ending."""


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
        raise FileNotFoundError(f"there is no table {source}{nearest_name(source)}")
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


def unpacked(table: str) -> bytes:
    """Reads a table's bytes, unpacked by its ending or its first bytes.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be unpacked.
    """
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
