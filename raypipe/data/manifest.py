"""The manifest: one row for each image, and the dataset's class names.

Conventions: class ids are 1..C in the order of `classes`; 0 is background. A null in `labels` means "not labelled", an
empty list "no object".
"""

import difflib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import schema, storage
from raypipe.credentials import refuse_credentials
from raypipe.data.rows import ONLY_PART, InMemory, Part
from raypipe.uri import absolute, parent
from raypipe.uri_columns import absolute_all
from raypipe.words import counted

REQUIRED_COLUMNS = ("image_id", "image_uri", "labels")
URI_COLUMNS = ("image_uri", "mask_uri", "saliency_uri")

_NULLABLE = pa.schema([field.with_nullable(nullable=True) for field in schema.MANIFEST])
"""Nullable, so that a check of its own, not a type error, reports a missing image_id with the row's number."""


class UnknownLabel(ValueError):  # noqa: N818 - a kind of row, named as in the quarantine table
    """A label isn't one of the dataset's classes."""


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `table` has exactly the columns of `schema.MANIFEST`, with nulls for missing ones.

    Raises:
        ValueError: a column is missing or has another type, an `image_id` is empty, missing or occurs twice, a URI has
            credentials in it, a `supervision` is unknown, or `classes` can't be used.
    """

    table: pa.Table
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        check_classes(self.classes)
        table = _conform(self.table)
        _check_image_ids(table["image_id"])
        _check_uris(table)
        _check_supervision(table["supervision"])
        object.__setattr__(self, "table", table)

    def __len__(self) -> int:
        return int(self.table.num_rows)

    @classmethod
    def from_rows(cls, rows: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> "Manifest":
        """Returns a manifest of dictionaries from column names to values; missing keys become null.

        Raises:
            ValueError: as for the class; or a value has the wrong type.
        """
        rows = list(rows)
        if texts := [row["labels"] for row in rows if isinstance(row.get("labels"), str)]:
            raise ValueError(f"expected a list of class names as labels, got the text {texts[0]!r}")
        known = set(schema.MANIFEST.names)
        for key in {key for row in rows for key in row}:
            if key not in known:
                raise ValueError(f"unknown column {key!r}{nearest(key, sorted(known))}")
        try:
            table = pa.Table.from_pylist(rows, schema=_NULLABLE)
        except (pa.ArrowInvalid, pa.ArrowTypeError, UnicodeEncodeError) as error:
            raise ValueError(f"a row doesn't fit the manifest's columns: {error}") from error
        return cls(table, tuple(classes))

    def select(self, *, splits: Sequence[str] | None = None) -> "Manifest":
        """Returns the rows of the named splits in the manifest's order, or all rows for None.

        Raises:
            ValueError: as `check_splits`.
        """
        if splits is None:
            return self
        check_splits(splits, self.splits)
        return Manifest(self.table.filter(in_splits(self.table, splits)), self.classes)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The rows as one part, as those of a manifest in storage are several."""
        return (Part(ONLY_PART, len(self), InMemory(self.table)),)

    @property
    def some_splits(self) -> frozenset[str]:
        """All splits that a row has."""
        return self.splits

    @property
    def splits(self) -> frozenset[str]:
        """All splits that a row has."""
        return frozenset(split for split in pc.unique(self.table["split"]).to_pylist() if split is not None)

    def limit(self, num_images: int) -> "Manifest":
        """Returns the first `num_images` rows of each split."""
        seen: dict[str | None, int] = {}
        kept = []
        for index, split in enumerate(self.table["split"].to_pylist()):
            seen[split] = seen.get(split, 0) + 1
            if seen[split] <= num_images:
                kept.append(index)
        return Manifest(self.table.take(pa.array(kept, pa.int64())), self.classes)


def check_splits(splits: Sequence[str], present: Collection[str]) -> None:
    """Checks the names of splits.

    Raises:
        ValueError: there are none, or one that isn't present.
    """
    unknown = [split for split in splits if split not in present]
    if unknown or not splits:
        raise ValueError(
            f"no such split: {unknown}. The manifest has {sorted(present) or 'no splits: leave the option out'}"
        )


def in_splits(table: pa.Table, splits: Sequence[str]) -> pa.ChunkedArray:
    """True for the rows of some splits."""
    return pc.is_in(table["split"], pa.array(splits, pa.string()))


def class_ids_of(labels: Sequence[str], classes: Sequence[str]) -> list[int]:
    """Returns the class ids of an image's labels, in 1..C, ascending and without duplicates.

    Raises:
        UnknownLabel: a label isn't one of `classes`.
    """
    ids = {name: index for index, name in enumerate(classes, start=1)}
    for label in labels:
        if label not in ids:
            raise UnknownLabel(f"unknown label {label!r}{nearest(str(label), classes)}")
    return sorted({ids[label] for label in labels})


def read_manifest_file(uri: str) -> Manifest:
    """Reads one Parquet file of a manifest.

    Relative URIs in it start from the file's folder, so a dataset can be moved as a whole.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file isn't a manifest, or a row isn't valid.
    """
    data = storage.read_bytes(uri)
    try:
        table = pq.read_table(pa.BufferReader(data))
        classes = json.loads(stored_classes(table.schema.metadata, uri))
    except (pa.ArrowException, OSError) as error:  # Arrow reports a damaged page as OSError
        raise not_parquet(uri, error) from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{uri}: {error}") from error
    try:
        manifest = Manifest(table, tuple(classes))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{uri}: {error}") from error
    return Manifest(_resolve_uris(manifest.table, uri), manifest.classes)


def stored_classes(metadata: Mapping[bytes, bytes] | None, uri: str) -> bytes:
    """The JSON list of class names in a Parquet file's metadata.

    Raises:
        ValueError: there is none.
    """
    encoded = (metadata or {}).get(schema.CLASSES_KEY)
    if encoded is None:
        raise ValueError(
            f"{uri} doesn't name its classes (schema metadata {schema.CLASSES_KEY.decode()!r}). "
            "`raypipe import table` makes a manifest of such a file"
        )
    return encoded


def not_parquet(uri: str, error: Exception) -> ValueError:
    """Says that a file can't be read as Parquet."""
    return ValueError(f"{uri} is not a Parquet file, or a damaged one ({error}). `raypipe import` writes manifests")


def manifest_bytes(table: pa.Table, classes: Sequence[str]) -> bytes:
    """The content of a manifest's file: rows, with the class names in its metadata."""
    encoded = json.dumps(list(classes), ensure_ascii=False).encode()
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({schema.CLASSES_KEY: encoded}), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def nearest(name: str, known: Sequence[str]) -> str:
    """Returns the end of an error message about an unknown name: the most similar known name, or all of them."""
    if near := difflib.get_close_matches(name, known, n=1):
        return f": did you mean {near[0]!r}?"
    return f": known are {', '.join(known[:10])}{', …' if len(known) > 10 else ''}"


def check_classes(classes: Sequence[object]) -> None:
    """Checks a dataset's class names.

    Raises:
        ValueError: there are none, or more than an 8-bit mask holds; or a name is empty, not a string or occurs twice.
    """
    if not classes:
        raise ValueError("the dataset has no classes: at least one name is needed")
    if unusable := [name for name in classes if not isinstance(name, str) or not name.strip()]:
        raise ValueError(f"expected non-empty strings as class names, got {unusable[:3]}")
    if reserved := [name for name in classes if str(name).strip().strip("_").casefold() in schema.RESERVED]:
        raise ValueError(
            f"{reserved[0]!r} can't be a class: in masks 0 is background, and 255 is ignored. Drop the name where its "
            f"images show none of the classes (--map CSV with the line {reserved[0]},), else rename it (with the line "
            f"{reserved[0]},other)"
        )
    if len(set(classes)) < len(classes):
        twice = sorted({str(name) for name in classes if list(classes).count(name) > 1})
        raise ValueError(f"class names occur twice: {twice[:5]}")
    if len(classes) > schema.MAX_CLASSES:
        surplus = ", ".join(map(str, classes[schema.MAX_CLASSES : schema.MAX_CLASSES + 5]))
        raise ValueError(
            f"{len(classes)} classes, but 8-bit masks hold {schema.MAX_CLASSES}; those over the limit begin with "
            f"{surplus}. Merge or drop some: --map CSV renames classes (--draft-map writes one to start from), --top "
            f"{schema.MAX_CLASSES} keeps the most frequent, --min-images N drops rare ones"
        )


def _conform(table: pa.Table) -> pa.Table:
    """Returns the table with exactly the manifest's columns and types."""
    if missing := [name for name in REQUIRED_COLUMNS if name not in table.column_names]:
        raise ValueError(f"the manifest lacks {missing}; it has {table.column_names}")
    columns = []
    for field in schema.MANIFEST:
        if field.name not in table.column_names:
            columns.append(pa.nulls(table.num_rows, field.type))
            continue
        column = table[field.name]
        try:
            columns.append(column.cast(field.type))
            columns[-1].validate(full=True)  # a text of Parquet that isn't UTF-8 would otherwise fail much later
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"column {field.name!r}: expected {field.type}, got {column.type} ({error})") from error
    return pa.Table.from_arrays(columns, schema=_NULLABLE)


def _check_image_ids(ids: pa.ChunkedArray) -> None:
    unusable = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(ids), ""), fill_value=True)
    if pc.any(unusable).as_py():
        rows = pc.indices_nonzero(unusable).to_pylist()
        raise ValueError(
            f"{counted(len(rows), 'rows have no image_id')}, first row {rows[0]} (counted from 0): every row needs its "
            "own"
        )
    counts = pc.value_counts(ids)
    twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values").to_pylist()
    if twice:
        raise ValueError(
            f"{counted(len(twice), 'image_ids are given more than once')}, such as {twice[:3]}: every row needs its own"
        )


def _check_uris(table: pa.Table) -> None:
    for name in URI_COLUMNS:
        for row in pc.indices_nonzero(pc.fill_null(pc.match_substring(table[name], "@"), fill_value=False)).to_pylist():
            refuse_credentials(table[name][row].as_py(), where=f"{name} of row {row} (counted from 0)")


def _check_supervision(supervision: pa.ChunkedArray) -> None:
    known = [schema.SUPERVISED, schema.WEAK, schema.UNSUPERVISED]
    for kind in pc.unique(supervision).to_pylist():
        if kind is not None and kind not in known:
            raise ValueError(f"unknown supervision {kind!r}{nearest(kind, known)}")


def _resolve_uris(table: pa.Table, manifest_uri: str) -> pa.Table:
    folder = parent(absolute(manifest_uri))
    for name in URI_COLUMNS:
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), absolute_all(table[name], folder))
    return table
