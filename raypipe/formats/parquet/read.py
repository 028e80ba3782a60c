"""Imports Parquet files that hold images as bytes, such as Hugging Face datasets, without reading an image."""

import posixpath
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.containers.footers import Footer, file_key, read_footers
from raypipe.containers.place import cell_uri
from raypipe.containers.range_file import RangeFile
from raypipe.data.manifest import nearest
from raypipe.formats.containers import Container, Found, manifest_rows
from raypipe.formats.hugging_face.features import class_names, features_of, kind_of
from raypipe.formats.labels import PLAIN, LabelReader
from raypipe.formats.listing import IMAGE_SUFFIXES

_USUAL_LABELS = ("labels", "label")
_USUAL_ID = "image_id"
EXPORTED = ("image_id", "image", "mask", "confidence", "classes", "labels", "split", "height", "width", "image_uri")
"""Columns of what `raypipe export huggingface` writes."""


@dataclass(frozen=True, kw_only=True)
class ParquetReader:
    """Reads footer, labels and ids of one Parquet file. A dotted column is a field of a struct, as `image.bytes`."""

    image_column: str | None = None
    """Column of image files' bytes; by default the only one there is."""
    label_column: str | None = None
    """By default `labels`, `label`, or else the only column of Hugging Face's class labels; without any, images are
    unlabelled."""
    id_column: str | None = None
    """By default `image_id`, or else ids are made of the container's name and the row."""
    mask_column: str | None = None
    """Column of true masks' bytes."""
    reader: LabelReader = PLAIN
    """Whose names are those of class numbers where the file states none."""

    def __call__(self, container: Container) -> Found:
        """Returns the file's rows.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, a column isn't there or is of another kind, or labels can't be read.
        """
        fs, path = storage.filesystem(container.uri)
        key = file_key(fs, path)
        footer = read_footers([key])[key]
        if isinstance(footer, Exception):
            raise footer
        file = RangeFile(fs, path)
        try:
            parquet = pq.ParquetFile(file, metadata=footer.metadata, pre_buffer=True)
            return self._read(container, parquet, footer)
        except (pa.ArrowException, OSError) as error:  # Arrow reports a page that can't be decompressed as OSError
            raise file.failure or ValueError(f"{container.uri} is a damaged Parquet file ({error})") from error
        except ValueError as error:
            raise ValueError(f"{container.uri}: {error}") from error

    def _read(self, container: Container, parquet: pq.ParquetFile, footer: Footer) -> Found:
        schema = parquet.schema_arrow
        if set(EXPORTED) <= set(schema.names) and self.image_column is None and self.mask_column is None:
            return replace(self, image_column="image", mask_column="mask")._read_export(container, parquet, footer)
        return self._read_columns(container, parquet, footer)

    def _read_export(self, container: Container, parquet: pq.ParquetFile, footer: Footer) -> Found:
        """What `raypipe export huggingface` wrote: it knows splits, and images that weren't copied, by their URIs."""
        found = self._read_columns(container, parquet, footer)
        rows = found.rows
        copied = pa.array(_are_there(parquet, "image.bytes"), pa.bool_())
        uris = pa.chunked_array([_values(parquet, "image_uri")], pa.string())
        splits = rows["split"] if container.split else pa.chunked_array([_values(parquet, "split")], pa.string())
        for name, values in (("image_uri", pc.if_else(copied, rows["image_uri"], uris)), ("split", splits)):
            rows = rows.set_column(rows.column_names.index(name), rows.schema.field(name), values)
        return replace(found, rows=rows)

    def _read_columns(self, container: Container, parquet: pq.ParquetFile, footer: Footer) -> Found:
        schema = parquet.schema_arrow
        features = features_of(schema)
        image = self._pictures(schema, features, self.image_column, but=self.mask_column)
        mask = self._pictures(schema, features, self.mask_column) if self.mask_column else None
        labels = self.label_column or _find_labels(schema, features)
        ids = self.id_column or (_USUAL_ID if _USUAL_ID in schema.names else None)
        stated = labels and class_names(features, labels)
        names = stated or self.reader.names
        reader = replace(self.reader, names=names or None)
        number = parquet.metadata.num_rows

        def values(column: str | None) -> Sequence[Any]:
            return [None] * number if column is None else _values(parquet, column)

        image_types, mask_types = (_types(values(_path_column(schema, column))) for column in (image, mask))
        groups = _groups(parquet.metadata)
        rows: list[dict[str, object]] = []
        for row, (label, own_id, image_type, mask_type, group) in enumerate(
            zip(values(labels), values(ids), image_types, mask_types, groups, strict=True)
        ):
            rows.append(
                {
                    "image_id": f"{container.name}/{row}" if ids is None else None if own_id is None else str(own_id),
                    "image_uri": cell_uri(container.uri, image, row, group=group, content=image_type),
                    "labels": reader.read(label, place=f"row {row} (counted from 0)"),
                    "mask_uri": mask and cell_uri(container.uri, mask, row, group=group, content=mask_type),
                }
            )
        sizes = (footer.size(group, footer.leaves[image]) for group in range(len(footer.ends)))
        return Found(
            rows=manifest_rows(rows, container),
            classes=tuple(stated) if stated else None,
            largest_read=max(sizes, default=0),
        )

    def _pictures(
        self, schema: pa.Schema, features: Mapping[str, Any], column: str | None, *, but: str | None = None
    ) -> str:
        """The full name of the column of image files, with the field that holds the bytes."""
        candidates = dict(_binary_columns(schema))
        if column is not None:
            for name in (column, f"{column}.bytes"):
                if name in candidates.values():
                    return name
            raise ValueError(f"no column {column!r} of bytes; there are {', '.join(candidates.values()) or 'none'}")
        if pictures := [name for name in candidates if kind_of(features.get(name)) == "Image"]:
            candidates = {name: candidates[name] for name in pictures}
        found = [full for name, full in candidates.items() if but not in (name, full)]
        if len(found) != 1:
            raise ValueError(
                f"expected one column of image files' bytes, found {', '.join(found) or 'none'} among "
                f"{', '.join(schema.names)}: name it by --image-column"
            )
        return found[0]


def _are_there(parquet: pq.ParquetFile, leaf: str) -> list[bool]:
    """Whether each row has a value in a column of bytes; the bytes are read where the file doesn't say it."""
    found: list[bool] = []
    names = [parquet.schema.column(index).path for index in range(len(parquet.schema.names))]
    for group in range(parquet.metadata.num_row_groups):
        number = parquet.metadata.row_group(group).num_rows
        statistics = parquet.metadata.row_group(group).column(names.index(leaf)).statistics
        nulls = statistics.null_count if statistics is not None and statistics.has_null_count else None
        if nulls in (0, number):
            found += [nulls == 0] * number
        else:
            column = parquet.read_row_group(group, columns=[leaf]).column(0)
            found += pc.is_valid(pc.struct_field(column, leaf.split(".")[1:])).to_pylist()
    return found


def _binary_columns(schema: pa.Schema) -> Iterator[tuple[str, str]]:
    """Column and full name, for columns of bytes and structs with a field `bytes`."""
    for field in schema:
        kind = field.type
        if pa.types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0:
            if _is_binary(kind.field(index).type):
                yield field.name, f"{field.name}.bytes"
        elif _is_binary(kind):
            yield field.name, field.name


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _path_column(schema: pa.Schema, column: str | None) -> str | None:
    """The field that tells a picture's file name, beside its bytes."""
    name, _, field = (column or "").rpartition(".")
    if field != "bytes" or name not in schema.names:
        return None
    kind = schema.field(name).type
    return f"{name}.path" if kind.get_field_index("path") >= 0 else None


def _types(paths: Sequence[str | None]) -> Iterator[str | None]:
    for path in paths:
        ending = posixpath.splitext(path or "")[1].lower()
        yield ending[1:] if ending in IMAGE_SUFFIXES else None


def _groups(metadata: pq.FileMetaData) -> Iterator[int]:
    for group in range(metadata.num_row_groups):
        yield from [group] * metadata.row_group(group).num_rows


def _values(parquet: pq.ParquetFile, column: str) -> Sequence[Any]:
    """A column's values; only its own bytes of the file are read.

    Raises:
        ValueError: there is no such column.
    """
    names = parquet.schema_arrow.names
    table = parquet.read(columns=[column])
    if table.num_columns == 0:
        raise ValueError(f"no column {column!r}{nearest(column, names)}")
    values = table.column(0)
    for field in () if column in names else column.split(".")[1:]:
        values = pc.struct_field(values, [field])
    return list(values.to_pylist())


def _find_labels(schema: pa.Schema, features: Mapping[str, Any]) -> str | None:
    for name in _USUAL_LABELS:
        if name in schema.names:
            return name
    found = [name for name in schema.names if class_names(features, name)]
    return found[0] if len(found) == 1 else None
