"""Reads tables of images and labels: a row an image, with its labels in a cell or in a column a class."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from raypipe.data.manifest import nearest
from raypipe.formats.draft import NUMBER, Draft, draft_table
from raypipe.formats.hugging_face.features import class_names, features_of
from raypipe.formats.labels import PLAIN, LabelReader, is_missing
from raypipe.formats.listing import IMAGE_SUFFIXES
from raypipe.formats.quote import quote
from raypipe.formats.table.dialect import Dialect, full_width_hint
from raypipe.formats.table.files import TEXTS, ending, find_tables, folder_of
from raypipe.formats.table.records import Record, parquet_schema, read_records
from raypipe.schema import CLASSES_KEY

IMAGE_COLUMNS = (
    *(
        "image_uri",
        "file_name",
        "filename",
        "file",
        "image",
        "path",
        "filepath",
        "file_path",
        "image_path",
        "image_file",
    ),
    *("image_name", "img_path", "img_name", "img", "image_url", "url", "uri"),
)
"""Columns that hold images' names, in the order in which one of them is taken."""
LABEL_COLUMNS = ("labels", "label", "tags", "classes", "class", "categories", "category")
CONFIDENCE_COLUMNS = ("confidence", "score")
"""Columns of tables of one tag a row, which say how sure a tag is."""
ID_COLUMN = "image_id"
OPTIONAL_COLUMNS = ("split", "mask_uri", "saliency_uri", "supervision")
"""Columns that go into the manifest if the table has them."""

_HOT = {"1": True, "1.0": True, "true": True, "yes": True, "x": True} | dict.fromkeys(
    ("0", "0.0", "-1", "-1.0", "false", "no"), False
)
"""What cells of a column a class say. -1 is a class that was looked for and not seen, as in PASCAL VOC's lists."""

_INDEX = re.compile(r"|Unnamed: \d+|__index_level_\d+__")
"""Columns in which pandas writes the rows' numbers."""

_FIRST = 1_000
"""Rows that tell which columns there are: in JSON lines, a row may lack some."""


@dataclass(frozen=True, kw_only=True)
class TableOptions:
    """How a table is read; None finds a column by its usual names."""

    image_column: str | None = None
    label_column: str | None = None
    id_column: str | None = None
    multi_hot: tuple[str, ...] | None = None
    """Columns that are a class each, in the order of the classes; "*" for all that are nothing else."""
    dialect: Dialect = field(default_factory=Dialect)
    labels: LabelReader = PLAIN


def read_table(source: str, options: TableOptions | None = None) -> Draft:
    """Returns the rows of a table.

    Names of images count from the table's folder.

    Args:
        source: absolute URI of a table, or of a folder of tables of one format.
        options: how it is read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it can't be read in the format of its ending, lacks a column, has no rows, or a cell can't be read.
    """
    options = options or TableOptions()
    tables = find_tables(source)
    root = folder_of(source)
    rows: list[dict[str, Any]] = []
    places: list[str] = []
    notes: list[str] = []
    nulls: list[str] = []
    odd: dict[str, str] = {}
    names: tuple[str, ...] | None = None
    for table in tables:
        schema = parquet_schema(table)
        records = read_records(table, options.dialect)
        first = list(itertools.islice(records, _FIRST))
        if not first:
            continue
        reader = _RowReader.of(first, table, options, schema)
        if names is not None and reader.names != names:
            raise ValueError(
                f"{table} has other class names than the tables before it, {quote(reader.names)} and not "
                f"{quote(names)}: import one at a time (--into)"
            )
        names = reader.names
        notes += [note for note in reader.notes if note not in notes]
        for record in itertools.chain(first, records):
            rows.append({NUMBER: len(rows), **reader.read(record)})
            places.append(record.place)
            reader.look_for_odd(record, nulls, odd)
    if not rows:
        raise ValueError(f"{source} has no rows")
    if nulls:
        notes.append(f"{len(nulls):,} lists hold null or NaN, which was left out, first in {nulls[0]}")
    notes += [f"the label {text!r} is taken as a class' name, first in {place}" for text, place in odd.items()]
    return Draft(
        table=draft_table(rows),
        source=source,
        root=root,
        place=places.__getitem__,
        classes=names,
        classes_from=f"the columns of {source}" if options.multi_hot else f"the class names in {source}",
        notes=notes,
    )


_LIKE_NOTHING = ("nan", "null", "none", "n/a", "na", "undefined", "-")
"""Texts that programs write where there is nothing."""


@dataclass(frozen=True, kw_only=True)
class _RowReader:
    """Reads rows with certain columns."""

    image: str
    label: str | None
    own_id: str | None
    hot: tuple[str, ...]
    labels: LabelReader
    names: tuple[str, ...] | None
    notes: Sequence[str]

    @classmethod
    def of(cls, first: Sequence[Record], table: str, options: TableOptions, schema: pa.Schema | None) -> "_RowReader":
        columns = list(dict.fromkeys(name for record in first for name in record.values))
        notes = []
        image = find_column(columns, options.image_column, IMAGE_COLUMNS, "--image-column", table)
        if options.image_column is None and image != IMAGE_COLUMNS[0]:
            notes.append(f"images are those of the column {image!r}")
        if any(_is_bytes(record.values.get(image)) for record in first):
            raise ValueError(
                f"{table}: the column {image!r} holds images' bytes, not their names: `raypipe import parquet` reads "
                "such files, and leaves images where they are"
            )
        own_id = options.id_column or (ID_COLUMN if ID_COLUMN in columns and image != ID_COLUMN else None)
        if own_id is not None and own_id not in columns:
            raise ValueError(f"{table} has no column {own_id!r} (--id-column){nearest(own_id, columns)}")
        hot: tuple[str, ...] = ()
        label = None
        if options.multi_hot is not None:
            taken = {image, own_id, *OPTIONAL_COLUMNS}
            others = tuple(name for name in columns if name not in taken and not _INDEX.fullmatch(name))
            hot = others if "*" in options.multi_hot else options.multi_hot
            if absent := [name for name in hot if name not in columns]:
                raise ValueError(f"{table} has no column {absent[0]!r} (--multi-hot){nearest(absent[0], columns)}")
        else:
            unread = _confidence_column(columns)
            is_long = unread is not None or _come_again([record.values.get(image) for record in first])
            label = find_column(
                columns,
                options.label_column,
                LABEL_COLUMNS,
                "--label-column",
                table,
                hint=". The table looks like one of a tag a row: add --long, which reads such tables"
                if is_long
                else "",
            )
            if options.label_column is None and label != LABEL_COLUMNS[0]:
                notes.append(f"labels are those of the column {label!r}")
            if unread is not None and unread != label:
                notes.append(
                    f"the column {unread!r} isn't read, so a tag of any confidence becomes a label: where each row is "
                    "one tag, --long reads it, and --min-confidence leaves unsure tags out"
                )
        counted = tuple(class_names(features_of(schema), label) or ()) if schema is not None and label else ()
        reader = replace(options.labels, names=counted or options.labels.names)
        names = hot or counted or _classes_of_manifest(schema) or None
        return cls(image=image, label=label, own_id=own_id, hot=hot, labels=reader, names=names, notes=notes)

    def read(self, record: Record) -> dict[str, Any]:
        """Returns a row of a draft."""
        values, place = record.values, record.place
        image = values.get(self.image)
        if is_missing(image):
            image = None  # counted with the images that are missing
        elif not isinstance(image, str):
            raise ValueError(f"{place}: expected an image's name or URI in {self.image!r}, got {quote(image)}")
        row: dict[str, Any] = {name: _text(values.get(name), name, place) for name in OPTIONAL_COLUMNS}
        own_id = None if self.own_id is None else _id(values.get(self.own_id), self.own_id, place)
        return row | {"image_uri": image, "image_id": own_id, "labels": self._labels(values, place)}

    def _labels(self, values: dict[str, Any], place: str) -> list[str] | None:
        if self.label is not None:
            return self.labels.read(values.get(self.label), place=f"{place}, column {self.label!r}")
        seen = [_is_hot(values.get(name), f"{place}, column {name!r}") for name in self.hot]
        if all(one is None for one in seen):
            return None if self.labels.empty == "null" else []
        return [name for name, one in zip(self.hot, seen, strict=True) if one]

    def look_for_odd(self, record: Record, nulls: list[str], odd: dict[str, str]) -> None:
        """Notes what was read, but is seldom meant."""
        value = None if self.label is None else record.values.get(self.label)
        if isinstance(value, list) and any(is_missing(one) for one in value):
            nulls.append(f"{record.place}, column {self.label!r}")
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and one.strip().lower() in _LIKE_NOTHING:
                odd.setdefault(one.strip(), f"{record.place}, column {self.label!r}")


def _classes_of_manifest(schema: pa.Schema | None) -> tuple[str, ...]:
    """The classes of a manifest that is read as a table."""
    stored = (schema.metadata or {}).get(CLASSES_KEY) if schema is not None else None
    return () if stored is None else tuple(map(str, json.loads(stored)))


def _confidence_column(columns: Sequence[str]) -> str | None:
    return next((name for name in columns if name.lower() in CONFIDENCE_COLUMNS), None)


def _come_again(images: Sequence[Any]) -> bool:
    """Whether most images stand in several rows."""
    counts = Counter(name for name in images if isinstance(name, str))
    return 2 * sum(number > 1 for number in counts.values()) > len(counts)


def find_column(
    columns: Sequence[str], given: str | None, usual: Sequence[str], option: str, table: str, *, hint: str = ""
) -> str:
    """Returns the column that is named, or else the first of the usual ones.

    Args:
        columns: of the table.
        given: the one that is named.
        usual: names in lower case, of which the first that is there is taken.
        option: that names the column.
        table: for messages.
        hint: ends the message where there is none.

    Raises:
        ValueError: there is none.
    """
    if given is not None:
        if given in columns:
            return given
        raise ValueError(f"{table} has no column {given!r} ({option}){nearest(given, columns)}")
    found = {name.lower(): name for name in reversed(columns)}
    for name in usual:
        if name in found:
            return found[name]
    if ending(table) in TEXTS and any(name.lower().endswith(IMAGE_SUFFIXES) for name in columns):
        hint = ". The first line has to name the columns: write such a line above the others"
    raise ValueError(
        f"{table} has none of the columns {', '.join(usual[:4])}, …: name the one that is meant ({option}); there are "
        f"{', '.join(quote(name) for name in columns[:10])}{', …' if len(columns) > 10 else ''}{hint}"
        f"{full_width_hint(''.join(columns))}"
    )


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, dict) and "bytes" in value)


def _text(value: Any, column: str, place: str) -> str | None:
    if is_missing(value) or value == "":
        return None
    if not isinstance(value, str):
        raise ValueError(f"{place}: expected a text in {column!r}, got {quote(value)}")  # noqa: TRY004 - the file's mistake
    return value.strip() or None


def _id(value: Any, column: str, place: str) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if is_missing(value) or isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise ValueError(f"{place}: expected a text or a number as id in {column!r}, got {quote(value)}")
    return str(value).strip()


def _is_hot(value: Any, place: str) -> bool | None:
    if is_missing(value) or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return value
    if isinstance(value, int | float | str) and (text := str(value).strip().lower()) in _HOT:
        return _HOT[text]
    raise ValueError(
        f"{place}: expected 1 or 0, got {quote(value)}. Name the columns that are classes (--multi-hot a,b,c)"
    )
