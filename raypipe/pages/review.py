"""The review queue: the masks whose correction probably helps most, as a gallery, a table and tasks for Label Studio.

Ranked by the expected gain of `raypipe.ops.review`, from the small columns of the mask shards: no mask is decoded but
the queue's own, and no more rows are kept than the queue holds.
"""

import heapq
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import raypipe
from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.names import file_stem
from raypipe.data.shards import iter_shards, read_row
from raypipe.formats.base import NO_SPLIT, ExportedRow, Item, MaskRow
from raypipe.formats.label_studio.write import LabelStudio
from raypipe.ops.review import expected_gain
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import locate
from raypipe.reports.review import ReviewCard, render_review
from raypipe.schema import REVIEW, SHARD_DIGEST, SUPERVISED
from raypipe.stages.base import ROW_ERRORS
from raypipe.streams.records import open_folder, read_summary, set_digest, write_summary
from raypipe.streams.sink import SHARDS

logger = logging.getLogger(__name__)

GALLERY_FILE = "index.html"
QUEUE_FILE = "queue.parquet"


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """A mask of the queue and what its gain is made of."""

    image_id: str
    image_uri: str
    split: str
    labels: tuple[str, ...]
    shard_uri: str
    predicted_iou: float
    areas: dict[str, float]
    """Share of the image of each class that the mask holds or the image is labelled with."""
    parts: dict[str, float]
    """Each such class's part of the gain."""
    reason: str

    @property
    def gain(self) -> float:
        """The expected gain."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Queue:
    """The first of all masks."""

    rows: list[Ranked]
    num_masks: int
    """That were ranked."""


def run_review(
    context: Context, *, masks: Artifact, num_images: int, splits: Sequence[str] | None = None
) -> tuple[str, int]:
    """Writes the queue of a folder of masks, unless that is done already.

    Args:
        context: config and manifest.
        masks: the folder.
        num_images: length of the queue.
        splits: whose masks are ranked; None ranks all that there are.

    Returns:
        The folder with the queue, and the queue's length.
    """
    config = context.config
    rows = reviewable_rows(context, splits)
    provenance = {
        "masks": masks.digest,
        "num_images": num_images,
        "rows": set_digest(locate(rows, masks), [*rows.column_names, SHARD_DIGEST]),
        "raypipe": raypipe.__version__,
    }
    folder = storage.join(config.out, "review", storage.digest(provenance))
    open_folder(folder, provenance)
    summary = read_summary(folder)
    if summary is None:
        queue = rank(rows, masks.uri, classes=context.classes, num_images=num_images)
        LabelStudio(context.classes).finish(lambda: _tasks(queue.rows, context.classes), folder)
        _write_table(queue.rows, storage.join(folder, QUEUE_FILE))
        cards = _cards(queue.rows, max_side=config.images.max_side)
        page = render_review(cards, classes=context.classes, num_masks=queue.num_masks)
        storage.write_bytes_atomic(storage.join(folder, GALLERY_FILE), page.encode())
        summary = {"num_images": len(queue.rows), "num_masks": queue.num_masks}
        write_summary(folder, summary)
    return folder, summary["num_images"]


def reviewable_rows(context: Context, splits: Sequence[str] | None) -> pa.Table:
    """Rows of the manifest whose masks are worth looking at: those whose true mask isn't given."""
    rows = context.supervised_rows(splits)
    unsure = rows.filter(pc.not_equal(rows["supervision"], SUPERVISED))
    return unsure.select(["image_id", "image_uri", "labels", "split"])


def rank(rows: pa.Table, masks: str, *, classes: Sequence[str], num_images: int) -> Queue:
    """The masks of the largest gain, the largest first; those without any gain are left out.

    Args:
        rows: of the manifest: image_id, image_uri, labels, split.
        masks: folder of masks; the classes' areas are those of all of them.
        classes: class names in class-id order.
        num_images: that are wanted.
    """
    folder = storage.join(masks, SHARDS)
    totals, counts = np.zeros(len(classes)), np.zeros(len(classes), np.int64)
    for _, table in iter_shards(folder, columns=["class_ids", "areas"]):
        areas = _areas(table, len(classes))
        totals += areas.sum(axis=0)
        counts += np.count_nonzero(areas, axis=0)
    ids, names = rows["image_id"].combine_chunks(), pa.array(classes, pa.string())
    first: list[Ranked] = []
    num_masks = 0
    for uri, table in iter_shards(folder, columns=["image_id", "class_ids", "areas", "predicted_iou"]):
        position = pc.index_in(table["image_id"], ids)
        table = table.filter(pc.is_valid(position))
        found = rows.take(position.drop_null())
        num_masks += table.num_rows
        areas = _areas(table, len(classes))
        labelled = _dense(found["labels"], pc.index_in(pc.list_flatten(found["labels"]), names), len(classes)) > 0
        predicted_iou = table["predicted_iou"].to_numpy().astype(np.float64)
        parts = expected_gain(areas, labelled, predicted_iou, totals=totals, counts=counts)
        best = np.argsort(-parts.sum(axis=1), kind="stable")[:num_images]
        new = [
            _ranked(found.slice(index, 1), table.slice(index, 1), uri, areas[index], parts[index], totals, classes)
            for index in best.tolist()
            if parts[index].any()
        ]
        first = heapq.nsmallest(num_images, [*first, *new], key=lambda row: (-row.gain, row.image_id))
    return Queue(first, num_masks)


def _areas(table: pa.Table, num_classes: int) -> NDArray[np.float64]:
    """Share of each image (rows) of each class, without background."""
    class_ids = pc.list_flatten(table["class_ids"])
    areas = pc.list_flatten(table["areas"]).to_numpy().astype(np.float64)
    return _dense(table["class_ids"], class_ids, num_classes + 1, areas)[:, 1:]


def _dense(
    lists: pa.ChunkedArray, columns: pa.ChunkedArray, width: int, values: NDArray[np.float64] | float = 1.0
) -> NDArray[np.float64]:
    """Lists as rows of a matrix: `values` in the `columns` of their elements; those of no column are left out."""
    row = pc.list_parent_indices(lists.combine_chunks()).to_numpy()
    known = pc.is_valid(columns).to_numpy(zero_copy_only=False) if columns.null_count else np.ones(len(row), bool)
    matrix = np.zeros((len(lists), width))
    matrix[row[known], columns.drop_null().to_numpy()] = values if isinstance(values, float) else values[known]
    return matrix


def _ranked(
    row: pa.Table,
    found: pa.Table,
    shard_uri: str,
    areas: NDArray[np.float64],
    parts: NDArray[np.float64],
    totals: NDArray[np.float64],
    classes: Sequence[str],
) -> Ranked:
    manifest, mask = row.to_pylist()[0], found.to_pylist()[0]
    concerned = np.flatnonzero(parts).tolist()
    return Ranked(
        image_id=manifest["image_id"],
        image_uri=manifest["image_uri"] or "",
        split=file_stem(manifest["split"] or NO_SPLIT),
        labels=tuple(manifest["labels"] or ()),
        shard_uri=shard_uri,
        predicted_iou=mask["predicted_iou"],
        areas={classes[index]: float(areas[index]) for index in concerned},
        parts={classes[index]: float(parts[index]) for index in concerned},
        reason=_reason(mask["predicted_iou"], areas, parts, totals, classes),
    )


def _reason(
    predicted_iou: float,
    areas: NDArray[np.float64],
    parts: NDArray[np.float64],
    totals: NDArray[np.float64],
    classes: Sequence[str],
) -> str:
    """Why a mask is in the queue, in words; the class with the largest part first."""
    texts = [f"Predicted IoU {predicted_iou:.2f}."]
    for index in np.argsort(-parts, kind="stable")[: np.count_nonzero(parts)].tolist():
        name, area = classes[index], areas[index]
        if area == 0:
            texts.append(f"Labelled {name}, but its mask has none.")
        else:
            share = area / totals[index]
            texts.append(
                f"{name}: {100 * area:.0f}\u00a0% of the image, {100 * share:.1f}\u00a0% of all that is masked {name}."
            )
    return " ".join(texts)


def _tasks(rows: Sequence[Ranked], classes: Sequence[str]) -> Iterator[ExportedRow]:
    """The tasks, with rank, gain and reason beside what an export's have, one mask in memory at a time."""
    format_ = LabelStudio(classes)
    for number, row in enumerate(rows, start=1):
        found = read_row(row.shard_uri, row.image_id, columns=["mask", "confidence"])
        common: dict[str, Any] = {
            "image_id": row.image_id,
            "number": number,
            "split": row.split,
            "image_uri": row.image_uri,
        }
        mask = MaskRow(mask=decode_mask(found["mask"]), confidence=decode_mask(found["confidence"]), **common)
        items = []
        for item in format_.render(mask).items:
            task = json.loads(item.data)
            task["data"] |= {"rank": number, "gain": row.gain, "reason": row.reason}
            items.append(Item(item.kind, json.dumps(task).encode()))
        yield ExportedRow(items=items, **common)


def _write_table(rows: Sequence[Ranked], uri: str) -> None:
    table = pa.Table.from_pylist(
        [
            {
                "rank": number,
                "image_id": row.image_id,
                "image_uri": row.image_uri,
                "gain": row.gain,
                "predicted_iou": row.predicted_iou,
                "class_names": list(row.parts),
                "areas": list(row.areas.values()),
                "parts": list(row.parts.values()),
                "reason": row.reason,
            }
            for number, row in enumerate(rows, start=1)
        ],
        schema=REVIEW,
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    storage.write_bytes_atomic(uri, buffer.getvalue().to_pybytes())


def _cards(rows: Sequence[Ranked], *, max_side: int) -> Iterator[ReviewCard]:
    for number, row in enumerate(rows, start=1):
        yield ReviewCard(
            rank=number,
            image_id=row.image_id,
            labels=row.labels,
            gain=row.gain,
            predicted_iou=row.predicted_iou,
            reason=row.reason,
            pixels=_photograph(row, max_side=max_side),
            mask=decode_mask(read_row(row.shard_uri, row.image_id, columns=["mask"])["mask"]),
        )


def _photograph(row: Ranked, *, max_side: int) -> NDArray[np.uint8] | None:
    """The image; None where it is gone since its mask was made."""
    try:
        return decode_image(storage.read_bytes(row.image_uri), max_side=max_side).pixels
    except ROW_ERRORS as error:
        logger.warning("no photograph of %s in the gallery: %s", row.image_id, error)
        return None
