"""Tables of one tag a row: rows of an image, wherever they stand, come together in files of a scratch folder.

    ImageID,LabelName,Confidence
    7f2a,cat,1
    7f2a,dog,0

Rows are scattered over partitions by their image, table by table, and each partition is gathered alone: so memory
depends on neither the number of rows nor that of tables. What comes out is the same in any order of the rows.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from raypipe import storage, uri
from raypipe.data.names import hash_names
from raypipe.imports.classes import clean
from raypipe.imports.images import SAMPLE
from raypipe.imports.label_column import LabelColumn
from raypipe.imports.long_rows import LongOptions, tag_batches
from raypipe.schema import MANIFEST
from raypipe.uri_columns import absolute_all

_SCATTERED = pa.schema([("image", pa.string()), ("label", pa.string())])
_GATHERED = pa.schema([("image", pa.string()), ("labels", pa.list_(pa.string()))])


@dataclass
class Seen:
    """What was seen of the rows, to be added up."""

    rows: int = 0
    negatives: int = 0
    """Tags of confidence 0."""
    nameless: int = 0
    """Rows that name no image."""
    unsure: int = 0
    """Tags below `min_confidence`."""
    images: int = 0
    unlabelled: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    """Images of each name."""
    renamed: set[str] = field(default_factory=set)
    """Names of the class map that rows have."""
    sample: list[tuple[int, str]] = field(default_factory=list)
    """Hashes and URIs of the images whose hashes are smallest."""

    def add(self, other: "Seen") -> None:
        """Adds what was seen elsewhere."""
        self.rows += other.rows
        self.negatives += other.negatives
        self.nameless += other.nameless
        self.unsure += other.unsure
        self.images += other.images
        self.unlabelled += other.unlabelled
        self.counts += other.counts
        self.renamed |= other.renamed
        self.sample = sorted(self.sample + other.sample)[:SAMPLE]


def scatter(table: str, number: int, options: LongOptions, scratch: str, partitions: int) -> Seen:
    """Writes the rows of a table into files of the partitions that their images belong to.

    Args:
        table: absolute URI.
        number: of the table, unlike that of the others.
        options: how it is read.
        scratch: absolute URI of a folder.
        partitions: their number.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it can't be read, or lacks a column.
    """
    seen = Seen()
    names: dict[str | None, list[str] | None] = {}
    with ExitStack() as stack:
        writers: dict[int, Any] = {}
        for batch in tag_batches(table, options):
            rows, part_of_row = _rows_of(batch, table, options, names, seen, partitions)
            order = np.argsort(part_of_row, kind="stable")
            ends = np.cumsum(np.bincount(part_of_row, minlength=partitions))
            ordered = rows.take(pa.array(order))
            for part, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
                if start == end:
                    continue
                if part not in writers:
                    file = stack.enter_context(storage.writing(_scattered(scratch, part, number)))
                    compressed = pa.ipc.IpcWriteOptions(compression="zstd")
                    writers[part] = stack.enter_context(pa.ipc.new_stream(file, _SCATTERED, options=compressed))
                writers[part].write_batch(ordered.slice(start, end - start))
    return seen


def gather(part: int, tables: int, class_map: Mapping[str, str | None], scratch: str) -> Seen:
    """Brings the rows of each image of a partition together.

    Args:
        part: the partition.
        tables: their number.
        class_map: new names of classes; None drops a name.
        scratch: as of `scatter`.
    """
    found = [one for number in range(tables) if (one := _read(_scattered(scratch, part, number))) is not None]
    seen = Seen()
    if not found:
        return seen
    rows = pa.concat_tables(found).combine_chunks()
    images = pc.dictionary_encode(rows["image"]).combine_chunks()
    order = np.argsort(np.asarray(images.dictionary.to_pylist(), object), kind="stable")
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    names = images.dictionary.take(pa.array(order))
    row_of = rank[images.indices.to_numpy(zero_copy_only=False)]
    labels = pc.dictionary_encode(rows["label"]).combine_chunks()
    ids = pc.fill_null(labels.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    kinds = labels.dictionary.to_pylist()
    looked = np.zeros(len(order), bool)  # images of which a row says something, if only what they don't show
    looked[row_of[ids >= 0]] = True
    real = np.array([kind != NOTHING for kind in kinds], bool)
    tagged = (ids >= 0) & (real[ids] if len(real) else False)
    keep = np.flatnonzero(tagged)
    keep = keep[np.argsort(row_of[keep], kind="stable")]
    column = LabelColumn(tuple(kinds), row_of[keep], ids[keep], ~looked).moved(dict(class_map))
    table = pa.table([names, column.arrow()], schema=_GATHERED)
    with storage.writing(_gathered(scratch, part)) as file, pa.ipc.new_stream(file, _GATHERED) as writer:
        writer.write_table(table, max_chunksize=10_000)
    hashes = hash_names(names, "existence")
    smallest = np.argsort(hashes, kind="stable")[:SAMPLE]
    seen.renamed = {name for name in kinds if name in class_map}
    seen.images, seen.unlabelled = len(order), int((~looked).sum())
    counts = zip(column.names, column.counts().tolist(), strict=True)
    seen.counts = Counter({name: number for name, number in counts if number})
    seen.sample = [(int(hashes[index]), names[int(index)].as_py()) for index in smallest]
    return seen


NOTHING = ""
"""In the place of a label: the row says that its image doesn't show a class."""


def read_gathered(scratch: str, part: int) -> pa.Table | None:
    """Returns the images of a partition with their labels (`image`, `labels`); None where it has none."""
    return _read(_gathered(scratch, part))


def _scattered(scratch: str, part: int, number: int) -> str:
    return storage.join(scratch, f"rows/{part:05d}/{number:06d}.arrow")


def _gathered(scratch: str, part: int) -> str:
    return storage.join(scratch, f"images/{part:05d}.arrow")


def _read(place: str) -> pa.Table | None:
    try:
        with storage.opened(place) as file:
            return pa.ipc.open_stream(file).read_all()
    except FileNotFoundError:
        return None


def _rows_of(
    batch: pa.RecordBatch,
    table: str,
    options: LongOptions,
    names: dict[str | None, list[str] | None],
    seen: Seen,
    partitions: int,
) -> tuple[pa.RecordBatch, np.ndarray[Any, np.dtype[np.int64]]]:
    """Image and label of each row of a batch, a row for each label, and the partition of each."""
    seen.rows += batch.num_rows
    named = pc.fill_null(pc.not_equal(pc.utf8_trim_whitespace(batch.column(0).cast(pa.string())), ""), False)  # noqa: FBT003
    seen.nameless += batch.num_rows - (pc.sum(named).as_py() or 0)
    batch = batch.filter(named)
    images = pc.dictionary_encode(batch.column(0).cast(pa.string()))
    own = pc.utf8_trim_whitespace(images.dictionary)
    if options.image_suffix:
        own = pc.binary_join_element_wise(own, options.image_suffix, "")
    uris = absolute_all(pa.chunked_array([own]), options.root).combine_chunks()
    part_of = (hash_names(uris, "partition") % np.uint64(partitions)).astype(np.int64)
    image_of = images.indices.to_numpy(zero_copy_only=False)
    labels = pc.dictionary_encode(batch.column(1))
    for value in labels.dictionary.to_pylist():
        if value not in names:
            place = f"{table}, column {batch.schema.names[1]!r}"
            found = options.labels.read(value, place=place)
            names[value] = found and [clean(name) for name in found]
    lists: list[list[str] | None] = [names[value] for value in labels.dictionary.to_pylist()]
    own_lists = pa.array(lists, pa.list_(pa.string())).take(labels.indices)
    if batch.num_columns > 2:
        own_lists = _by_confidence(batch.column(2), own_lists, table, options, seen)
    # A row without a label stays, for its image is one that nobody labelled, or that shows none of the classes.
    lengths = pc.list_value_length(own_lists)
    nothing = pc.equal(lengths, 0)
    filled = pc.if_else(pc.fill_null(nothing, False), pa.scalar([NOTHING], pa.list_(pa.string())), own_lists)  # noqa: FBT003
    filled = pc.if_else(filled.is_valid(), filled, pa.scalar([None], pa.list_(pa.string())))
    row_of = pc.list_parent_indices(filled).to_numpy(zero_copy_only=False)
    index = image_of[row_of]
    rows = pa.record_batch([uris.take(pa.array(index)), pc.list_flatten(filled)], schema=_SCATTERED)
    return rows, part_of[index]


def _by_confidence(column: pa.Array, lists: pa.Array, table: str, options: LongOptions, seen: Seen) -> pa.Array:
    """Empties the lists of tags that aren't there; of those that aren't sure, nobody knows."""
    try:
        values = column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise ValueError(f"{table}: the column of confidences holds what is no number ({str(error)[:200]})") from error
    negative = pc.fill_null(pc.less_equal(values, 0.0), False)  # noqa: FBT003
    unsure = pc.and_not(pc.fill_null(pc.less(values, options.min_confidence or 0.0), False), negative)  # noqa: FBT003
    seen.negatives += pc.sum(negative).as_py() or 0
    seen.unsure += pc.sum(unsure).as_py() or 0
    known = pc.if_else(unsure, pa.scalar(None, pa.list_(pa.string())), lists)
    return pc.if_else(negative, pa.scalar([], pa.list_(pa.string())), known)


def part_table(
    gathered: pa.Table, *, root: str, names: tuple[str, ...], split: str | None, without: Collection[str] = ()
) -> pa.Table:
    """Returns the rows of a manifest of a partition's images.

    Args:
        gathered: as `read_gathered` returns it.
        root: absolute URI of the folder that names count from.
        names: the manifest's classes; other labels are dropped.
        split: of all images.
        without: URIs of images that are left out.
    """
    if without:
        gathered = gathered.filter(pc.invert(pc.is_in(gathered["image"], pa.array(sorted(without), pa.string()))))
    labels = LabelColumn.of(gathered["labels"])
    labels = labels.moved({name: None for name in labels.names if name not in names}).ordered(names)
    uris = gathered["image"].combine_chunks()
    prefix = root.rstrip("/") + "/"
    if uri.is_local(root) or uri.protocol(root) == "s3":
        below = pc.starts_with(uris, prefix)
        ids = pc.if_else(below, pc.utf8_slice_codeunits(uris, len(prefix)), uris)
    else:
        ids = pa.array([uri.relative(one, root) or one for one in uris.to_pylist()], pa.string())
    number = len(uris)
    nulls = pa.nulls(number, pa.string())
    split_column = nulls if split is None else pa.array([split] * number, pa.string())
    columns = {
        "image_id": ids,
        "image_uri": uris,
        "labels": labels.arrow(),
        "split": split_column,
    }
    return pa.table([columns.get(name, nulls) for name in MANIFEST.names], names=MANIFEST.names)
