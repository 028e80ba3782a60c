"""Tables, as programs write them."""

import bz2
import gzip
import io
import json
import lzma
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.formats.table.dialect import Dialect
from raypipe.formats.table.records import read_records

ROWS = [{"image_uri": "é 1.jpg", "labels": "cat"}, {"image_uri": "b.jpg", "labels": "dog|cat"}]


def read(path: Path, **dialect: str) -> list[dict[str, Any]]:
    return [record.values for record in read_records(str(path), Dialect(**dialect))]


def frame() -> pd.DataFrame:
    return pd.DataFrame(ROWS)


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)  # type: ignore[no-any-return]


CSV = "image_uri,labels\né 1.jpg,cat\nb.jpg,dog|cat\n"

WRITTEN: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "unix": ("t.csv", CSV.encode(), {}),
    "windows": ("t.csv", CSV.replace("\n", "\r\n").encode(), {}),
    "old mac": ("t.csv", CSV.replace("\n", "\r").encode(), {}),
    "no newline at the end": ("t.csv", CSV.rstrip().encode(), {}),
    "empty lines": ("t.csv", CSV.replace("\n", "\n\n,\n").encode(), {}),
    "byte order mark": ("t.csv", CSV.encode("utf-8-sig"), {}),
    "utf-16": ("t.csv", CSV.encode("utf-16"), {}),
    "utf-16 big-endian": ("t.csv", b"\xfe\xff" + CSV.encode("utf-16-be"), {}),
    "utf-16 of Excel": ("t.txt", CSV.replace(",", "\t").replace("\n", "\r\n").encode("utf-16"), {}),
    "utf-32": ("t.csv", CSV.encode("utf-32"), {}),
    "cp1252": ("t.csv", CSV.encode("cp1252"), {"encoding": "cp1252"}),
    "utf-16 without a mark": ("t.csv", CSV.encode("utf-16-le"), {"encoding": "utf-16-le"}),
    "semicolons of Excel": ("t.csv", CSV.replace(",", ";").encode("cp1252"), {"encoding": "cp1252"}),
    "semicolons": ("t.csv", CSV.replace(",", ";").encode(), {}),
    "sep=": ("t.csv", b"\xef\xbb\xbfsep=;\r\n" + CSV.replace(",", ";").encode(), {}),
    "sep= in quotes": ("t.csv", b'"sep=;"\r\n' + CSV.replace(",", ";").encode(), {}),
    "tabs": ("t.tsv", CSV.replace(",", "\t").encode(), {}),
    "tabs in a csv": ("t.csv", CSV.replace(",", "\t").encode(), {}),
    "pipes": ("t.csv", CSV.replace(",", "~").encode(), {"delimiter": "~"}),
    "all in quotes": ("t.csv", frame().to_csv(index=False, quoting=1).encode(), {}),
    "spaces after commas": ("t.csv", CSV.replace(",", ", ").encode(), {}),
    "spaces in the header": ("t.csv", CSV.replace("image_uri,labels", " image_uri , labels ").encode(), {}),
    "commas at ends": ("t.csv", CSV.replace("\n", ",,\n").encode(), {}),
    "gzip": ("t.csv.gz", gzip.compress(CSV.encode()), {}),
    "gzip in members": ("t.csv.gz", gzip.compress(CSV[:20].encode()) + gzip.compress(CSV[20:].encode()), {}),
    "zstd": ("t.csv.zst", zstd(CSV.encode()), {}),
    "zstd in frames": ("t.csv.zst", zstd(CSV[:20].encode()) + zstd(CSV[20:].encode()), {}),
    "bzip2": ("t.csv.bz2", bz2.compress(CSV.encode()), {}),
    "xz": ("t.csv.xz", lzma.compress(CSV.encode()), {}),
    "gzip without its ending": ("t.csv", gzip.compress(CSV.encode()), {}),
    "zstd without its ending": ("t.csv", zstd(CSV.encode()), {}),
    "capital endings": ("T.CSV", CSV.encode(), {}),
    "json lines": ("t.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS).encode(), {}),
    "ndjson": ("t.ndjson", "".join(json.dumps(row) + "\r\n" for row in ROWS).encode(), {}),
    "json lines with a mark": ("t.jsonl", ("\ufeff" + "\n".join(map(json.dumps, ROWS))).encode(), {}),
    "a json list": ("t.json", json.dumps(ROWS, indent=2).encode(), {}),
    "json lines of pandas": ("t.json", frame().to_json(orient="records", lines=True).encode(), {}),
    "json lines, packed": ("t.jsonl.gz", gzip.compress("\n".join(map(json.dumps, ROWS)).encode()), {}),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows(tmp_path: Path, name: str) -> None:
    file, content, dialect = WRITTEN[name]
    (tmp_path / file).write_bytes(content)
    found = [{key: value for key, value in row.items() if key in ROWS[0]} for row in read(tmp_path / file, **dialect)]
    assert found == ROWS


@pytest.mark.parametrize("name", ["t.parquet", "t.pq", "t.csv", "t.parquet.gz"])
def test_parquet_whatever_its_name(tmp_path: Path, name: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(ROWS), buffer)
    content = buffer.getvalue()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read(tmp_path / name) == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.csv", "Bär,labels\n".encode("cp1252"), r"isn't utf-8: byte 0xe4 in line 1.*--encoding cp1252"),
        ("t.csv", b"a,labels\n1,2\n\xe4,2\n", r"byte 0xe4 in line 3"),
        ("t.csv", CSV.encode("utf-16-le"), r"null bytes.*--encoding utf-16-le"),
        ("t.csv", b"PK\x03\x04" + bytes(100), "is a workbook or a zip, whatever its name says: save it as CSV"),
        ("t.csv", b"\xd0\xcf\x11\xe0" + bytes(100), "is a workbook"),
        ("t.csv", b"a;b,c\n1;2,3\n", r"'a;b,c' may be divided by ',' or ';': name the --delimiter"),
        (
            "t.csv",
            b"a,b\n1,2,3\n",
            r"line 2: expected 2 cells, as in the header, got 3: \['1', '2', '3'\]. A cell that",
        ),
        ("t.csv", b"a,b\n1\n", "line 2: expected 2 cells"),
        ("t.csv", b'a,b\n"1,2\n', "after line 2: unexpected end of data"),
        ("t.csv", b'a,b\n"1"x,2\n', "after line 2: ',' expected after"),
        ("t.csv", b"a,a\n1,2\n", "several columns 'a'"),
        ("t.csv.gz", b"plain", "can't be unpacked as gzip"),
        ("t.csv.gz", gzip.compress(b"x" * 1000, mtime=0)[:20], "can't be unpacked as gzip"),
        ("t.csv.zst", b"plain", "can't be unpacked as zstd"),
        ("t.csv.bz2", b"plain", "can't be unpacked as bz2"),
        ("t.csv.xz", b"plain", "can't be unpacked as xz"),
        ("t.jsonl", b"{\n", "line 1: not JSON"),
        ("t.jsonl", b'{"a": 1}\n{"a": 2', "line 2: not JSON"),
        ("t.jsonl", b'"a"\n', "line 1: expected an object"),
        ("t.json", b"[1, 2]", r"object 0 \(counted from 0\): expected an object"),
        ("t.json", b"[" * 100_000, "not JSON"),
        ("t.json", b'{"images": [], "annotations": [], "categories": []}', "is a COCO file: `raypipe import coco`"),
        ("t.json", b'{\n"images": [],\n"annotations": []}', "a COCO file is read by `raypipe import coco`"),
        ("t.parquet", b"PAR1 and no more", "not a Parquet file"),
        ("t.xlsx", b"", r"expected a table that ends with \.csv"),
        ("t", b"", r"expected a table that ends with \.csv"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        read(tmp_path / name)
    assert name in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        ({"encoding": "klingon"}, "--encoding: there is no encoding 'klingon'"),
        ({"delimiter": "::"}, "--delimiter is one character, got '::'"),
        ({"delimiter": "\\t"}, r"--delimiter is one character, got .* \(a tab is"),
    ],
)
def test_dialects_that_are_none(tmp_path: Path, dialect: dict[str, str], message: str) -> None:
    (tmp_path / "t.csv").write_bytes(CSV.encode())
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "t.csv", **dialect)


def test_places_are_lines_as_an_editor_counts_them(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text('a,b\n1,"two\nlines"\n\n3,4\n')
    assert [record.place.rpartition(", ")[2] for record in read_records(str(tmp_path / "t.csv"), Dialect())] == [
        "line 3",
        "line 5",
    ]


def test_cells_of_megabytes(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(f"image_uri,labels,notes\na.jpg,cat,{'x' * 1_000_000}\n")
    assert len(read(tmp_path / "t.csv")[0]["notes"]) == 1_000_000
