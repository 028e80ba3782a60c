"""The review queue: the masks whose correction probably helps most, as a gallery, a table and tasks for Label Studio.

Ranked by the expected gain of `raypipe.ops.review`, from the small columns of the mask shards: no mask is decoded but
the queue's own, and no more rows are kept than the queue holds.
"""

import heapq
import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Images
from raypipe.data.images import decode_mask
from raypipe.data.names import file_stem
from raypipe.data.opening import MAX_PIXELS
from raypipe.data.rows import Part, Rows
from raypipe.data.scenes import read_image
from raypipe.data.shards import iter_shards
from raypipe.faults import ROW_ERRORS, in_words, sentence
from raypipe.formats.base import NO_SPLIT, ExportedRow, Item, MaskRow
from raypipe.formats.label_studio.write import LabelStudio
from raypipe.ops.review import expected_gain
from raypipe.outputs.ledger import SHARDS
from raypipe.outputs.load import held
from raypipe.outputs.records import open_folder, read_summary, write_summary
from raypipe.pages.areas import class_areas, class_labels
from raypipe.pages.explain import page_path, write_explanation
from raypipe.pages.finished import find_masks
from raypipe.pages.headline import headline
from raypipe.pages.shown import shown_mask
from raypipe.pipelines.context import Context
from raypipe.reports.review import render_review, review_card
from raypipe.results import Decision
from raypipe.schema import MASKS, REVIEW, SHARD_DIGEST, SUPERVISED, columns
from raypipe.stages.base import Row
from raypipe.streams.collect import outputs_of, reduce_outputs, rows_digest, with_ids

logger = logging.getLogger(__name__)

GALLERY_FILE = "index.html"
QUEUE_FILE = "queue.parquet"

_RANKED = ("class_ids", "areas", "predicted_iou")
"""Columns of a mask that its gain follows from."""


def run_review(
    context: Context,
    *,
    masks: Artifact,
    decisions: Sequence[Decision],
    num_images: int,
    splits: Sequence[str] | None = None,
    num_explained: int = 0,
) -> tuple[str, int]:
    """Writes the queue of a folder of masks, unless that is done already.

    Args:
        context: config and manifest.
        masks: the folder.
        decisions: of the gates, by which the masks were made.
        num_images: length of the queue.
        splits: whose masks are ranked; None ranks all that there are.
        num_explained: of the first ones, the gallery's cards open the page of everything that led to the mask, which
            is written here, too; none of a run in tiles.

    Returns:
        The folder with the queue, and the queue's length.
    """
    config = context.config
    rows = reviewable_rows(context, splits)
    provenance = {
        "masks": masks.digest,
        "num_images": num_images,
        "num_explained": num_explained,
        "rows": rows_digest(held(rows, masks), [*rows.columns, SHARD_DIGEST]),
    }
    folder = storage.join(config.out, "review", storage.digest(provenance))
    open_folder(folder, provenance)
    summary = read_summary(folder)
    if summary is None:
        queue, num_masks = rank(rows, masks, classes=context.classes, num_images=num_images)
        LabelStudio(context.classes).finish(lambda: _tasks(queue, context.classes), folder)
        table = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(queue, schema=REVIEW), table)
        storage.write_bytes_atomic(storage.join(folder, QUEUE_FILE), table.getvalue().to_pybytes())
        first = [] if config.images.tile else [row["image_id"] for row in queue[:num_explained]]
        explained = dict(_explain(context, first))
        cards = (_card(row, config.images, explained.get(row["image_id"])) for row in queue)
        title, about = headline(context, "Masks to review", decisions=decisions)
        page = render_review(cards, title=title, about=about, classes=context.classes, num_masks=num_masks)
        storage.write_bytes_atomic(storage.join(folder, GALLERY_FILE), page.encode())
        summary = {"num_images": len(queue), "num_masks": num_masks}
        write_summary(folder, summary)
    return folder, summary["num_images"]


def reviewable_rows(context: Context, splits: Sequence[str] | None) -> Rows:
    """Rows of the manifest whose masks are worth looking at: those whose true mask isn't given."""
    unsure = context.supervised_rows(splits).where(lambda table: pc.not_equal(table["supervision"], SUPERVISED))
    return unsure.select(["image_id", "image_uri", "labels", "split"])


def rank(rows: Rows, masks: Artifact, *, classes: Sequence[str], num_images: int) -> tuple[list[Row], int]:
    """The masks of the largest gain, the largest first; those without any gain are left out.

    Args:
        rows: of the manifest: image_id, image_uri, labels, split.
        masks: folder of masks; the classes' areas are those of all of them.
        classes: class names in class-id order.
        num_images: that are wanted.

    Returns:
        Rows by the schema `REVIEW`, with `labels`, `split`, `mask` and `confidence`; and how many masks were ranked.
    """
    totals, counts = np.zeros(len(classes)), np.zeros(len(classes), np.int64)
    for _, table in iter_shards(storage.join(masks.uri, SHARDS), columns=["class_ids", "areas"]):
        areas = class_areas(table, len(classes))
        totals += areas.sum(axis=0)
        counts += np.count_nonzero(areas, axis=0)
    gain = partial(_rank, tuple(classes), num_images, totals, counts)
    first: list[Row] = []
    num_masks = 0
    for number, some in reduce_outputs(masks, rows, columns(MASKS, "image_id", *_RANKED), gain):
        num_masks += number
        first = heapq.nsmallest(num_images, [*first, *some], key=_order)
    found = outputs_of(
        masks,
        with_ids(rows, [row["image_id"] for row in first]),
        columns(MASKS, "image_id", "height", "width", "mask", "confidence"),
    )
    pngs = {row["image_id"]: row for row in found.to_pylist()}
    return [row | pngs[row["image_id"]] | {"rank": number} for number, row in enumerate(first, start=1)], num_masks


def _rank(
    classes: Sequence[str],
    num_images: int,
    totals: NDArray[np.float64],
    counts: NDArray[np.int64],
    tables: Iterator[pa.Table],
    _: Part,
) -> tuple[int, list[Row]]:
    """The number of a part's masks, and those of the largest gain."""
    first: list[Row] = []
    num_masks = 0
    for table in tables:
        num_masks += table.num_rows
        areas = class_areas(table, len(classes))
        labelled = class_labels(table, classes)
        predicted_iou = table["predicted_iou"].to_numpy().astype(np.float64)
        parts = expected_gain(areas, labelled, predicted_iou, totals=totals, counts=counts)
        gains = parts.sum(axis=1)
        best = [index for index in np.argsort(-gains, kind="stable")[:num_images].tolist() if gains[index]]
        rows = table.drop_columns(["class_ids", "areas"]).take(pa.array(best, pa.int64())).to_pylist()
        first += [
            row | _gain(row["predicted_iou"], areas[index], parts[index], totals, classes)
            for row, index in zip(rows, best, strict=True)
        ]
        first = heapq.nsmallest(num_images, first, key=_order)
    return num_masks, first


def _order(row: Row) -> tuple[float, str]:
    return -row["gain"], row["image_id"]


def _gain(
    predicted_iou: float,
    areas: NDArray[np.float64],
    parts: NDArray[np.float64],
    totals: NDArray[np.float64],
    classes: Sequence[str],
) -> dict[str, Any]:
    """A mask's gain by class, and why it is in the queue, in words; the class with the largest part first."""
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
    concerned = np.flatnonzero(parts).tolist()
    return {
        "gain": float(parts.sum()),
        "class_names": [classes[index] for index in concerned],
        "areas": areas[concerned].tolist(),
        "parts": parts[concerned].tolist(),
        "reason": " ".join(texts),
    }


def _tasks(rows: Sequence[Row], classes: Sequence[str]) -> Iterator[ExportedRow]:
    """The tasks, with rank, gain and reason beside what an export's have, one mask in memory at a time."""
    format_ = LabelStudio(classes)
    for row in rows:
        if row["height"] * row["width"] > MAX_PIXELS:
            logger.warning("%s is too large for Label Studio: there is no task for it", row["image_id"])
            continue
        common: dict[str, Any] = {
            "image_id": row["image_id"],
            "number": row["rank"],
            "folder": file_stem(row["split"] or NO_SPLIT),
            "split": row["split"],
            "labels": None if row["labels"] is None else tuple(row["labels"]),
            "image_uri": row["image_uri"] or "",
        }
        mask = MaskRow(mask=decode_mask(row["mask"]), confidence=decode_mask(row["confidence"]), **common)
        items = []
        for item in format_.render(mask).items:
            task = json.loads(item.data)
            task["data"] |= {name: row[name] for name in ("rank", "gain", "reason")}
            items.append(Item(item.kind, json.dumps(task).encode()))
        height, width = mask.mask.shape
        yield ExportedRow(items=items, height=height, width=width, **common)


def _explain(context: Context, image_ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Writes the page of each mask; its id, and the page's place as seen from the gallery."""
    if image_ids:
        logger.info("review: writing what led to the first %d masks, some seconds each", len(image_ids))
        masks = find_masks(context).masks
    for image_id in image_ids:
        try:
            write_explanation(context, image_id)
        except ROW_ERRORS as error:  # such as a photograph that is gone since the mask was made
            logger.warning("no page on what led to the mask of %s: %s", image_id, error)
        else:
            yield image_id, f"../../{page_path(masks, image_id)}"


def _card(row: Row, images: Images, explanation: str | None) -> dict[str, Any]:
    """A row in the gallery; without a photograph where that is gone since the mask was made."""
    mask = shown_mask(row, images)
    pixels: NDArray[np.uint8] | None = None
    try:
        pixels = read_image(row["image_uri"] or "", images).pixels
    except ROW_ERRORS as error:
        logger.warning("no photograph of %s in the gallery: %s", row["image_id"], sentence(in_words(error)))
    return review_card(row, pixels=pixels, mask=mask, explanation=explanation)
