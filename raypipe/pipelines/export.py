"""Exports: masks of a run, or true masks, in the formats of other tools, at any URI.

Workers write each image's own files at once. What goes into files that many images stand in travels through shards
below `<out>/_raypipe`, which are joined one after the other at the end: no process ever holds more than a shard. So an
export goes on where it was interrupted, and rows that can't be exported are quarantined, as in any stream.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.manifest import nearest
from raypipe.data.names import file_stem
from raypipe.data.shards import read_shard
from raypipe.formats.base import NO_SPLIT, ExportedRow, Format, Item, MaskRow, Options
from raypipe.formats.registry import FORMATS
from raypipe.pipelines.context import Context, stream_of, with_shards
from raypipe.pipelines.seeds import cpu_pool
from raypipe.schema import EXPORTS, IGNORE
from raypipe.stages.base import Row, Stage
from raypipe.stages.load_shards import LoadConfidences
from raypipe.stages.true_masks import LoadTrueMasks
from raypipe.streams import plan as graph
from raypipe.streams.records import MixedOutputs, Record
from raypipe.streams.run import Part, StreamSummary, run_stream
from raypipe.streams.sink import SHARDS

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


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which masks are exported, and which of their pixels."""

    splits: tuple[str, ...] | None = None
    """None takes all that there are."""
    min_confidence: float = 0.0
    """Pixels whose confidence is lower are ignored, 0..1; true masks have none and stay."""


_PLAIN, _EVERYTHING = Options(), Selection()


def run_export(
    context: Context,
    name: str,
    out: str,
    *,
    masks: str | None,
    masks_digest: str | None,
    options: Options = _PLAIN,
    selection: Selection = _EVERYTHING,
) -> tuple[str, StreamSummary]:
    """Writes the masks of a folder, or the true masks, in a format, unless that is done already.

    Args:
        context: config and manifest.
        name: of the format.
        out: URI of the folder to write into.
        masks: folder of masks; None takes the manifest's true masks.
        masks_digest: of that folder.
        options: of the format.
        selection: which masks, and which of their pixels.

    Returns:
        The folder and what was done.

    Raises:
        MixedOutputs: if the folder holds another export.
        ValueError: if there is nothing to export, no format of that name, or a library is missing.
    """
    out = storage.absolute(out)
    format_ = find_format(name)(context.classes, options)
    rows = export_rows(context, masks=masks, splits=selection.splits)
    record = Record(
        stage="export",
        config={"format": name, **asdict(options), **asdict(selection)},
        inputs={"masks": masks_digest or "truth", "manifest": context.inputs_digest(context.rows(None))},
    )
    stream = replace(stream_of(context, record, EXPORTS), out=storage.join(out, WORK))
    _refuse_mixing(out, stream.folder)
    steps = [
        graph.Step(stage=LoadTrueMasks, args={"num_classes": len(context.classes) + 1}, batch_size=8)
        if masks is None
        else graph.Step(stage=LoadConfidences, batch_size=8),
        graph.Step(
            stage=ExportMasks,
            args={"format_": format_, "out": out, "min_confidence": selection.min_confidence},
            batch_size=8,
            **cpu_pool(context),
        ),
    ]
    summary = run_stream(stream, Part(rows, steps))
    done = storage.join(out, WORK, DONE_FILE)
    if not storage.exists(done):
        shards = storage.list_files(storage.join(stream.folder, SHARDS), suffix=".parquet")
        format_.finish(lambda: read_exported(shards), out)
        content = record.provenance() | {"classes": context.classes, "summary": asdict(summary)}
        storage.write_bytes_atomic(done, json.dumps(content, indent=1, default=str).encode())
        for uri in shards:  # joined, and as large as what they were joined to
            storage.delete(uri)
    return out, summary


def export_rows(context: Context, *, masks: str | None, splits: Sequence[str] | None) -> pa.Table:
    """The rows to export, with their number in the manifest.

    Raises:
        ValueError: if there is none.
    """
    everything = context.rows(None)
    numbered = everything.append_column("number", pa.array(np.arange(1, len(everything) + 1)))
    wanted = context.rows(splits)["image_id"]
    rows = numbered.filter(pc.is_in(numbered["image_id"], pa.chunked_array(wanted.chunks, pa.string())))
    columns = ["image_id", "number", "split", "image_uri"]
    if masks is None:
        rows = rows.filter(pc.is_valid(rows["mask_uri"])).select([*columns, "mask_uri"])
        missing = "a true mask (mask_uri)"
    else:
        rows, _ = with_shards(rows.select(columns), masks)
        missing = f"a mask in {masks}"
    if rows.num_rows == 0:
        raise ValueError(f"no row of {'any split' if splits is None else f'splits {list(splits)}'} has {missing}")
    return rows


class ExportMasks(Stage):
    """Writes an image's files, and passes on its share of the others.

    Args:
        format_: what to write.
        out: the folder's URI.
        min_confidence: pixels of less confidence are ignored, 0..1.
    """

    reads = ("image_id", "number", "split", "image_uri", "mask", "confidence")
    writes = pa.schema([EXPORTS.field("split"), EXPORTS.field("items")])
    drops = ("mask", "confidence")

    def __init__(self, *, format_: Format, out: str, min_confidence: float) -> None:
        self.format = format_
        self.out = out
        self.min_confidence = min_confidence

    def process(self, row: Row) -> Row:
        """Exports a row.

        Raises:
            ValueError: if the mask is damaged or has ids that are no class, or the image can't be read.
        """
        exported = self._mask_row(row)
        rendered = self.format.render(exported)
        files = dict(rendered.files)
        folder = self.format.image_folder(exported.split)
        if exported.image is not None and folder is not None:
            files[storage.join(folder, exported.image_name)] = exported.image
        for path, content in files.items():
            storage.write_bytes_atomic(storage.join(self.out, path), content)
        return {"split": exported.split, "items": [item._asdict() for item in rendered.items]}

    def _mask_row(self, row: Row) -> MaskRow:
        mask = decode_mask(row["mask"])
        num_classes = len(self.format.classes)
        highest = int(mask[mask != IGNORE].max(initial=0))
        if highest > num_classes:
            raise ValueError(f"the mask has the class id {highest}, but there are {num_classes} classes")
        confidence = None if row["confidence"] is None else decode_mask(row["confidence"])
        if confidence is not None:
            if confidence.shape != mask.shape:
                raise ValueError(f"the mask is {mask.shape}, its confidence {confidence.shape}")
            mask = np.where(confidence < 255 * self.min_confidence, np.uint8(IGNORE), mask)
        return MaskRow(
            image_id=row["image_id"],
            number=row["number"],
            image_uri=row["image_uri"] or "",
            split=file_stem(row["split"] or NO_SPLIT),
            mask=mask,
            confidence=confidence,
            image=storage.read_bytes(row["image_uri"]) if self.format.options.copy_images else None,
        )


def _refuse_mixing(out: str, folder: str) -> None:
    others = {
        uri.rsplit("/", 1)[0]
        for uri in storage.list_files(storage.join(out, WORK, "export"), suffix="record.json")
        if uri.rsplit("/", 2)[1] != folder.rsplit("/", 1)[-1]
    }
    if others:
        raise MixedOutputs(
            f"{out} holds another export ({', '.join(sorted(others))}): give another folder, or delete it"
        )


def read_exported(shards: Sequence[str]) -> Iterator[ExportedRow]:
    """The rows of an export's shards, one shard in memory at a time."""
    for uri in shards:
        for row in read_shard(uri, columns=EXPORTS.names).to_pylist():
            items = [Item(item["kind"], item["data"]) for item in row["items"]]
            yield ExportedRow(**row | {"items": items, "image_uri": row["image_uri"] or ""})
