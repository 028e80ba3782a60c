"""A table of image URIs and labels: CSV, JSON lines or Parquet."""

import csv
import io
import json
import posixpath
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.manifest import Manifest, absolute_uri, nearest, resolve_uri
from raypipe.formats.listing import find_classes, find_images, without_suffix

OPTIONAL_COLUMNS = ("split", "mask_uri", "saliency_uri", "supervision")
"""Taken over where a table has them."""


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
    """A manifest of a table's rows.

    Labels are a list (JSON lines, Parquet) or a text of names with a separator (all formats). Relative URIs count from
    the table's folder, image names from `images` if that is given. Without an id column the `image_id` is the file's
    name without its ending, or, where such names aren't unique, what the image column says.

    Args:
        uri: the table; its ending says what it is: .csv, .jsonl, .ndjson or .parquet.
        images: URI of a folder in which the image column's names are looked up, with or without their ending; images
            there that the table doesn't name are counted and left out.
        skip_missing: leave rows out whose image `images` doesn't have, instead of refusing.
        image_column: name of the column of image URIs.
        label_column: name of the column of labels.
        id_column: name of the column of ids; the table need not have it.
        separator: between the names in a text of labels.
        empty_labels: what an empty text says: "null", that nobody labelled the image (a CSV has no other way to say
            so), or "none", that it shows none of the classes. An empty list always says the latter, a null the former.
        classes: class names in the order of their ids; all labels in alphabetical order by default.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it can't be read as what its ending says, lacks a column, or has no rows; if `images`
            lacks an image.
    """
    records = _read(uri)
    if not records:
        raise ValueError(f"{uri} has no rows")
    columns = {name: None for record in records for name in record}
    for name, option in ((image_column, "image_column"), (label_column, "label_column")):
        if name not in columns:
            raise ValueError(f"{uri} has no column {name!r} (`{option}`){nearest(name, list(columns))}")
    folder = posixpath.dirname(absolute_uri(uri))
    rows: list[dict[str, Any]] = []
    for number, record in enumerate(records):
        image_uri, labels = record.get(image_column), record.get(label_column)
        place = f"{uri}, row {number} (counted from 0)"
        if not isinstance(image_uri, str) or not image_uri:
            raise ValueError(f"{place}: {image_column!r} is {image_uri!r}, needed is a URI")
        if not isinstance(labels, str | list | None):
            raise ValueError(f"{place}: {label_column!r} is {labels!r}, needed is a list of names or a text")  # noqa: TRY004
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
            row[name] = row[name] and resolve_uri(row[name], folder=folder)
    return Manifest.from_rows(rows, find_classes(rows, classes))


def _read(uri: str) -> list[dict[str, Any]]:
    suffix = posixpath.splitext(uri)[1].lower()
    data = storage.read_bytes(uri)
    if suffix == ".parquet":
        try:
            return list(pq.read_table(pa.BufferReader(data)).to_pylist())
        except pa.ArrowInvalid as error:
            raise ValueError(f"{uri} is not a Parquet file: {error}") from error
    if suffix not in (".csv", ".jsonl", ".ndjson"):
        raise ValueError(
            f"{uri} ends with {suffix!r}, which says no format: needed is .csv, .jsonl, .ndjson or .parquet"
        )
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
                    f"{uri}, line {reader.line_num}: not the header's {len(reader.fieldnames or ())} cells"
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
            raise ValueError(f'{uri}, line {number}: needed is an object such as {{"image_uri": …, "labels": […]}}')  # noqa: TRY004 - the file's mistake
        records.append(record)
    return records


def _labels(value: str | list[str] | None, separator: str, empty_labels: Literal["null", "none"]) -> list[str] | None:
    if not isinstance(value, str):
        return value
    names = [name.strip() for name in value.split(separator) if name.strip()]
    return names if names or empty_labels == "none" else None


def _name_by_files(rows: list[dict[str, Any]]) -> None:
    names = [without_suffix(posixpath.basename(row["image_uri"])) for row in rows]
    if len(set(names)) == len(names):  # else the image column's own text stays
        for row, name in zip(rows, names, strict=True):
            row["image_id"] = name
