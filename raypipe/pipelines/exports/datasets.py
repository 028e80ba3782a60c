"""Exports: masks of a run, or true masks, in the formats of other tools, at any URI.

Workers write each image's own files at once. What goes into files that many images stand in travels through shards
below `<out>/_raypipe`, which are joined one after the other at the end: no process ever holds more than a shard. So an
export goes on where it was interrupted, and rows that can't be exported are quarantined, as in any stream.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import NOT_IN_DIGEST, Artifact, digest
from raypipe.data.images import decode_image, decode_mask, encode_rgb_png
from raypipe.data.manifest import in_splits, nearest
from raypipe.data.names import file_stem
from raypipe.data.opening import MAX_PIXELS
from raypipe.data.rows import Part, Rows
from raypipe.data.shards import read_shard
from raypipe.faults import sentence
from raypipe.formats.base import NO_SPLIT, ExportedRow, Format, Item, MaskRow, Options
from raypipe.formats.registry import FORMATS
from raypipe.outputs.ledger import QUARANTINED, SHARDS
from raypipe.outputs.load import Load, held
from raypipe.outputs.records import stream_summary
from raypipe.pipelines.context import Context
from raypipe.pipelines.exports.destination import note_asked, note_rows, refuse_other, refuse_other_rows, what_is_asked
from raypipe.pipelines.exports.images import fit_images
from raypipe.results import StreamSummary
from raypipe.schema import EXPORTS, IGNORE, MASKS, QUARANTINE, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.true_masks import LoadTrueMasks
from raypipe.streams.collect import count, rows_digest
from raypipe.streams.plan import Plan
from raypipe.words import counted

logger = logging.getLogger(__name__)

Source = Literal["masks", "calibrated", "truth"]
"""A run's masks, the same calibrated, or the manifest's true masks."""

WORK = "_raypipe"
"""Folder of an export's own books, in its output folder."""
DONE_FILE = "export.json"


def find_format(name: str) -> type[Format]:
    """The format of a name.

    Raises:
        ValueError: if there is none.
    """
    if name not in FORMATS:
        raise ValueError(f"unknown format {name!r}{nearest(name, list(FORMATS))}")
    return FORMATS[name]


def make_format(name: str, classes: tuple[str, ...], options: Options) -> Format:
    """The format of a name.

    Raises:
        ValueError: if there is none of that name, or a library is missing.
    """
    return find_format(name)(classes, options)


def check_export(
    context: Context,
    name: str,
    out: str,
    *,
    of_truth: bool,
    options: Options,
    splits: Sequence[str] | None = None,
    min_confidence: float = 0.0,
) -> None:
    """Refuses what `run_export` would, as far as that is known before there are masks.

    Args:
        context: config and manifest.
        name: of the format.
        out: URI of the folder to write into.
        of_truth: true masks are exported.
        options: as of `run_export`.
        splits: as of `run_export`.
        min_confidence: as of `run_export`.

    Raises:
        MixedOutputs: if the folder holds an export that was asked for otherwise.
        ValueError: if there is no such split.
    """
    if splits is not None:
        context.rows(splits)
    asked = what_is_asked(name, context.classes, options, of_truth=of_truth, min_confidence=min_confidence)
    refuse_other(storage.join(storage.absolute(out), WORK), asked)


def run_export(
    context: Context,
    name: str,
    out: str,
    *,
    masks: Artifact | None,
    options: Options,
    splits: Sequence[str] | None = None,
    min_confidence: float = 0.0,
) -> tuple[str, StreamSummary]:
    """Writes the masks of a folder, or the true masks, in a format, unless that is done already.

    Args:
        context: config and manifest.
        name: of the format.
        out: URI of the folder to write into.
        masks: folder of masks; None takes the manifest's true masks.
        options: of the format.
        splits: whose masks are exported; None exports all that there are.
        min_confidence: pixels of less confidence are ignored, 0..1; true masks have none and stay.

    Returns:
        The folder and what was done.

    Raises:
        MixedOutputs: if the folder holds another export.
        ValueError: if there is nothing to export.
    """
    out = storage.absolute(out)
    work = storage.join(out, WORK)
    asked = what_is_asked(name, context.classes, options, of_truth=masks is None, min_confidence=min_confidence)
    refuse_other(work, asked)
    rows = export_rows(context, masks=masks, splits=splits)
    known = rows if masks is None else held(rows, masks)
    options = fit_images(make_format(name, context.classes, options), known, all_rows=context.rows(None))
    made = columns(MASKS, "mask", "confidence", "height", "width")
    load = None if masks is None else Load(outputs=masks, columns=made)
    export = ExportMasks(name=name, classes=context.classes, options=options, out=out, min_confidence=min_confidence)
    images = context.config.images
    truth = LoadTrueMasks(num_classes=len(context.classes) + 1, windows=images if images.by_windows else None)
    plan = Plan(
        name="export",
        takes=() if load is None else (load,),
        stages=(truth, export) if load is None else (export,),
        schema=EXPORTS,
        classes=context.classes,
    )
    # The files that many images stand in are written once: another set of rows is another export.
    exported = digest([plan.digest, rows_digest(known, plan.row_columns())])
    refuse_other_rows(work, exported)
    summary_uri = storage.join(work, DONE_FILE)
    if storage.exists(summary_uri):
        done = stream_summary(json.loads(storage.read_bytes(summary_uri))["summary"], uri=summary_uri)
        _tell_left_out(plan.artifact(work).uri)
        return out, done
    note_asked(work, asked)
    note_rows(work, exported)
    folder, summary = context.run(plan, rows, out=work)
    shards = storage.list_files(storage.join(folder.uri, SHARDS), suffix=".parquet")
    make_format(name, context.classes, options).conclude(lambda: read_exported(shards), out)
    content = plan.provenance() | {"format": name, "summary": asdict(summary)}
    storage.write_bytes_atomic(summary_uri, json.dumps(content, indent=1, default=str).encode())
    _tell_left_out(folder.uri)
    for uri in shards:  # joined, and as large as what they were joined to
        storage.delete(uri)
    return out, summary


def export_rows(context: Context, *, masks: Artifact | None, splits: Sequence[str] | None) -> Rows:
    """The rows to export, with their number in the manifest.

    Raises:
        ValueError: if there is none.
    """
    first, number = {}, 1
    for part in context.manifest.parts:
        first[part.name] = number
        number += part.num_rows

    def numbered(table: pa.Table, part: Part) -> pa.Table:
        return table.append_column("number", pa.array(np.arange(len(table)) + first.get(part.name, 1)))

    rows = context.rows(None).then(numbered)
    if splits is not None:
        context.rows(splits)  # raises where there is no such split
        rows = rows.where(lambda table: in_splits(table, splits))
    names = ["image_id", "number", "split", "labels", "image_uri"]
    if masks is None:
        rows = rows.where(lambda table: pc.is_valid(table["mask_uri"])).select([*names, "mask_uri"])
        missing = "a true mask (mask_uri)"
    else:
        rows = rows.select(names)
        missing = f"a mask in {masks.uri}"
    if not count(rows if masks is None else held(rows, masks)):
        raise ValueError(f"no row of {f'splits {splits}' if splits else 'any split'} has {missing}")
    return rows


@dataclass(kw_only=True)
class ExportMasks(Stage):
    """Writes an image's files, and passes on its share of the others."""

    name: str
    """Of the format."""
    classes: tuple[str, ...]
    options: Options
    out: str = field(metadata=NOT_IN_DIGEST)
    """The folder's URI."""
    min_confidence: float
    """Pixels of less confidence are ignored, 0..1."""

    reads = ("image_id", "number", "split", "labels", "image_uri", "mask", "confidence", "height", "width")
    writes = columns(EXPORTS, "folder", "items")

    def setup(self, device: str) -> None:  # noqa: ARG002 - there is no network
        """Makes the format."""
        self.format = make_format(self.name, self.classes, self.options)

    def process(self, row: Row) -> Row:
        """Exports a row.

        Raises:
            ValueError: if the mask is damaged or has ids that are no class, or the image can't be read.
        """
        exported = self._mask_row(row)
        rendered = self.format.render(exported)
        files = dict(rendered.files)
        folder = self.format.image_folder(exported.folder)
        if exported.image is not None and folder is not None:
            files[storage.join(folder, self.format.image_name(exported))] = exported.image
        for path, content in files.items():
            storage.write_bytes_atomic(storage.join(self.out, path), content)
        return {"folder": exported.folder, "items": [item._asdict() for item in rendered.items]}

    def _mask_row(self, row: Row) -> MaskRow:
        size = self._size(row)
        mask = decode_mask(row["mask"], size=size)
        num_classes = len(self.format.classes)
        highest = int(mask[mask != IGNORE].max(initial=0))
        if highest > num_classes:
            raise ValueError(f"the mask has the class id {highest}, of {counted(num_classes, 'classes')}")
        confidence = None if row["confidence"] is None else decode_mask(row["confidence"], size=size)
        if confidence is not None:
            if confidence.shape != mask.shape:
                raise ValueError(f"the mask is {mask.shape}, its confidence {confidence.shape}")
            mask = np.where(confidence < 255 * self.min_confidence, np.uint8(IGNORE), mask)
        return MaskRow(
            image_id=row["image_id"],
            number=row["number"],
            image_uri=row["image_uri"] or "",
            folder=file_stem(row["split"] or NO_SPLIT),
            split=row["split"],
            labels=None if row["labels"] is None else tuple(row["labels"]),
            mask=mask,
            confidence=confidence,
            image=self._image(row["image_uri"]) if self.format.options.copy_images else None,
        )

    def _size(self, row: Row) -> tuple[int, int]:
        """(height, width) of the mask, which may be large for a format that takes any size."""
        height, width = row["height"], row["width"]
        if height * width > MAX_PIXELS and not self.format.any_size:
            raise ValueError(
                f"a mask of {width} x {height} pixels is too large for the readers of {self.name}: export geotiff"
            )
        return height, width

    def _image(self, image_uri: str) -> bytes:
        """The file that the tool is to read."""
        data = storage.read_bytes(image_uri)
        return encode_rgb_png(decode_image(data, max_side=None).pixels) if self.format.converts(image_uri) else data


def _tell_left_out(folder: str) -> None:
    """Says where the rows are that couldn't be exported, with an example."""
    place = storage.join(folder, QUARANTINED)
    for uri in storage.list_files(place, suffix=".parquet")[:1]:
        row = read_shard(uri, columns=QUARANTINE.names).to_pylist()[0]
        reason = sentence(row["reason"])
        logger.warning("not exported: %s (%s); all such rows are in %s", row["image_id"], reason, place)


def read_exported(shards: Sequence[str]) -> Iterator[ExportedRow]:
    """The rows of an export's shards, one shard in memory at a time."""
    for uri in shards:
        for row in read_shard(uri, columns=EXPORTS.names).to_pylist():
            items = [Item(item["kind"], item["data"]) for item in row["items"]]
            labels = None if row["labels"] is None else tuple(row["labels"])
            yield ExportedRow(**row | {"items": items, "labels": labels, "image_uri": row["image_uri"] or ""})
