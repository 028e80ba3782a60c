"""Imports a table of image URIs and labels: CSV, JSON lines or Parquet."""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.manifest import Manifest, nearest
from raypipe.formats.listing import find_classes, find_images, without_suffix
from raypipe.uri import absolute, name_of, parent, suffix_of

OPTIONAL_COLUMNS = ("split", "mask_uri", "saliency_uri", "supervision")
"""Columns that go into the manifest if the table has them."""


def import_table(
    uri: str,
    *,
    images: str | None = None,
    skip_missing: bool = False,
    image_column: str = "image_uri",
    label_column: str = "labels",
    id_column: str = "image_id",
    separator: str = "|",
    empty_labels: Literal["null", "none"] = "null",
    classes: Sequence[str] | None = None,
) -> Manifest:
    """Returns a manifest of a table's rows.

    Labels are a list (JSON lines, Parquet) or a text of names with a separator (all formats). Relative URIs start from
    the table's folder, image names from `images` if that is given. Without an id column the `image_id` is the image
    file's name without its ending or, if these names aren't unique, the value in the image column.

    Args:
        uri: URI of the table; its ending chooses the format: .csv, .jsonl, .ndjson or .parquet.
        images: URI of a folder in which the image column's names are looked up, with or without their ending. Images
            that the table doesn't name are left out and counted in a warning.
        skip_missing: leave out rows whose image isn't in `images`, instead of raising.
        image_column: name of the column of image URIs.
        label_column: name of the column of labels.
        id_column: name of the column of ids; the table need not have it.
        separator: between the names in a text of labels.
        empty_labels: what an empty text means: "null" that nobody labelled the image (a CSV can't say so otherwise),
            "none" that the image shows none of the classes. An empty list always means the latter, null the former.
        classes: class names in the order of their ids; all labels in alphabetical order by default.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the table can't be read in the format of its ending, lacks a column or has no rows, or `images`
            lacks an image.
    """
    records = _read(uri)
    if not records:
        raise ValueError(f"{uri} has no rows")
    columns = {name: None for record in records for name in record}
    for name, option in ((image_column, "image_column"), (label_column, "label_column")):
        if name not in columns:
            raise ValueError(f"{uri} has no column {name!r} (`{option}`){nearest(name, list(columns))}")
    folder = parent(absolute(uri))
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        image_uri, labels = record.get(image_column), record.get(label_column)
        place = f"{uri}, row {number} (counted from 0)"
        if not isinstance(image_uri, str) or not image_uri:
            raise ValueError(f"{place}: expected a URI in {image_column!r}, got {image_uri!r}")
        if not isinstance(labels, str | list | None):
            raise ValueError(f"{place}: expected a list of names or a text in {label_column!r}, got {labels!r}")  # noqa: TRY004
        row = {name: record.get(name) or None for name in OPTIONAL_COLUMNS}
        image_id = record.get(id_column) if id_column in columns else image_uri
        row |= {"image_id": None if image_id is None else str(image_id), "image_uri": image_uri}
        rows.append(row | {"labels": _labels(labels, separator, empty_labels)})
    if images is not None:
        rows = find_images(rows, images, skip_missing=skip_missing)
    if id_column not in columns:
        _name_by_files(rows)
    for row in rows:
        for name in ("image_uri", "mask_uri", "saliency_uri"):
            row[name] = row[name] and absolute(row[name], folder)
    return Manifest.from_rows(rows, find_classes(rows, classes))


def _read(uri: str) -> list[dict[str, Any]]:
    suffix = suffix_of(uri)
    data = storage.read_bytes(uri)
    if suffix == ".parquet":
        try:
            return list(pq.read_table(pa.BufferReader(data)).to_pylist())
        except pa.ArrowInvalid as error:
            raise ValueError(f"{uri} is not a Parquet file: {error}") from error
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise ValueError(f"expected a table that ends with .csv, .jsonl, .ndjson or .parquet, got {uri}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{uri} is not UTF-8: {error}") from error
    return _read_csv(text, uri) if suffix == ".csv" else _read_json_lines(text, uri)


def _read_csv(text: str, uri: str) -> list[dict[str, Any]]:
    records = []
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for record in reader:
            if None in record or None in record.values():
                raise ValueError(
                    f"{uri}, line {reader.line_num}: expected {len(reader.fieldnames or ())} cells, as in the header"
                )
            records.append(dict(record))
    except csv.Error as error:
        raise ValueError(f"{uri}, after line {reader.line_num}: {error}") from error
    return records


def _read_json_lines(text: str, uri: str) -> list[dict[str, Any]]:
    records = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{uri}, line {number}: not JSON ({error})") from error
        if not isinstance(record, dict):
            raise ValueError(f'{uri}, line {number}: expected an object such as {{"image_uri": …, "labels": […]}}')  # noqa: TRY004 - the file's mistake
        records.append(record)
    return records


def _labels(value: str | list[str] | None, separator: str, empty_labels: Literal["null", "none"]) -> list[str] | None:
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(separator) if name.strip()]
    return names if names or empty_labels == "none" else None


def _name_by_files(rows: list[dict[str, Any]]) -> None:
    names = [without_suffix(name_of(row["image_uri"])) for row in rows]
    if len(set(names)) == len(names):  # otherwise the image column's text stays the id
        for row, name in zip(rows, names, strict=True):
            row["image_id"] = name
