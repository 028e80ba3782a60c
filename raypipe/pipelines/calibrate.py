"""Calibrated masks: their confidence is the probability that a pixel's label is right, learned from a few true masks.

The images to learn from are drawn by a hash of (seed, image_id), so they are the same on every cluster; on the other
images with true masks is measured what came of it.
"""

import json
import logging
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.config import Budget
from raypipe.data.rows import Part, Rows
from raypipe.ops.calibration import NUM_LEVELS, expected_calibration_error, fit_isotonic, mean_iou_at_coverage
from raypipe.outputs.load import Load, held
from raypipe.outputs.records import open_folder, read_summary, write_summary
from raypipe.pipelines.context import Context
from raypipe.results import Measured, StreamSummary
from raypipe.schema import MASKS, SHARD_DIGEST, columns
from raypipe.stages.calibrate_masks import CalibrateMasks, CountHits, add_counts, probability_levels
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.collect import collect, count, draw_rows, quarantined, reduce_outputs, rows_digest
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
COUNTS = pa.schema([pa.field("image_id", pa.string()), *CountHits.writes])
"""Columns of a counted row."""
COVERAGES = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
"""Shares of the pixels, surest first, whose mIoU is reported."""


@dataclass(frozen=True, kw_only=True)
class ConfidenceMap:
    """From a mask's confidence to the probability that the pixel's label is right."""

    probability: tuple[float, ...]
    """For each confidence 0..255; ascending."""
    image_ids: tuple[str, ...]
    """Images that it was fitted on."""
    num_pixels: int
    measured: Measured | None
    """None where no other image has a true mask."""
    num_unscored: int
    """Images whose true mask couldn't be compared: their reasons are in `unscored`."""
    unscored: dict[str, str]


def rows_with_truth(context: Context) -> Rows:
    """Rows that get masks and have true masks.

    Raises:
        ValueError: if there is none.
    """
    rows = context.rows(context.config.splits.masks).where(lambda table: pc.is_valid(table["mask_uri"]))
    if not count(rows):
        splits = context.config.splits.masks
        which = "the manifest" if splits is None else f"splits.masks={splits}"
        raise ValueError(
            f"no row of {which} has a true mask (mask_uri), and calibration learns from those; 50 are enough. Import a "
            "table whose column mask_uri names them, or a layout that has masks (VOC, COCO)"
        )
    return rows


def run_calibration(context: Context, *, masks: Artifact) -> tuple[Artifact, ConfidenceMap]:
    """Fits the map on the masks of a folder and measures it, unless that is done already.

    Args:
        context: config and manifest.
        masks: the folder.

    Returns:
        The folder with `calibration.json`, and the map.

    Raises:
        ValueError: if no image has a true mask that can be compared.
    """
    config = context.config
    rows = rows_with_truth(context)
    plan = count_plan(context, masks=masks)
    try:
        context.run(plan, rows, budget=Budget(max_fraction=1))
    except BudgetExceeded as error:  # no true mask could be compared, which `_fit` says
        logger.warning("calibrate: %s", error)
    counted = plan.artifact(config.out)
    provenance = {
        "counts": [counted.digest, rows_digest(held(rows, counted), [SHARD_DIGEST])],
        "drawn": [config.calibration.num_images, config.seed],
    }
    calibrated = digest(provenance)
    folder = storage.join(config.out, "calibrate", calibrated)
    open_folder(folder, provenance)
    uri = storage.join(folder, CALIBRATION_FILE)
    if read_summary(folder) is None:
        fitted = _fit(_count(context, counted, rows))
        content = asdict(fitted) | {"masks": masks.digest}
        storage.write_bytes_atomic(uri, json.dumps(content, indent=1).encode())
        write_summary(folder, {"num_images": len(fitted.image_ids)})
    return Artifact(folder, calibrated), _read(uri)


def count_plan(context: Context, *, masks: Artifact) -> Plan:
    """CountHits, of the masks of a stream."""
    return Plan(
        name="counts",
        takes=(Load(outputs=masks, columns=columns(MASKS, "mask", "confidence")),),
        stages=(CountHits(num_classes=len(context.classes) + 1),),
        schema=COUNTS,
        classes=context.classes,
    )


def run_calibrated(
    context: Context, *, masks: Artifact, confidence_map: ConfidenceMap
) -> tuple[Artifact, StreamSummary]:
    """Writes the masks of a folder with calibrated confidence; those that aren't there yet.

    Args:
        context: config and manifest.
        masks: the folder.
        confidence_map: what to make of their confidence.

    Returns:
        The calibrated masks' folder and what was done.
    """
    config = context.config
    calibrate = CalibrateMasks(probability=confidence_map.probability, max_risk=config.calibration.max_risk)
    everything = columns(MASKS, *(name for name in MASKS.names if name != "image_id"))
    plan = Plan(
        name="calibrated",
        takes=(Load(outputs=masks, columns=everything),),
        stages=(calibrate,),
        schema=MASKS,
        classes=context.classes,
    )
    return context.run(plan, context.rows(config.splits.masks).select(["image_id"]))


@dataclass
class _Counts:
    """Counts of the images that were drawn, and of all others together."""

    drawn: NDArray[np.int64]
    others: NDArray[np.int64]
    image_ids: list[str]
    """That were drawn."""
    num_others: int = 0
    unscored: dict[str, str] = field(default_factory=dict)


def _count(context: Context, counted: Artifact, rows: Rows) -> _Counts:
    """Adds up counts. The drawn are those with the least hashes among all images that could be compared."""
    config, shape = context.config, (3, NUM_LEVELS, len(context.classes) + 1)
    drawn = draw_rows(held(rows, counted), config.calibration.num_images, seed=config.seed)
    image_ids = sorted(collect(drawn.select(["image_id"]))["image_id"].to_pylist())
    total = _Counts(np.zeros(shape, np.int64), np.zeros(shape, np.int64), image_ids)
    add = partial(_add, shape, frozenset(image_ids))
    for of_drawn, of_others, num_others in reduce_outputs(counted, rows.select(["image_id"]), COUNTS, add):
        total.drawn += of_drawn
        total.others += of_others
        total.num_others += num_others
    total.unscored = {row["image_id"]: row["error_reason"] for row in quarantined(counted, rows).to_pylist()}
    return total


def _add(
    shape: tuple[int, ...], drawn: Collection[str], tables: Iterator[pa.Table], _: Part
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    of_drawn, of_others, num_others = np.zeros(shape, np.int64), np.zeros(shape, np.int64), 0
    for row in (row for table in tables for row in table.to_pylist()):
        is_drawn = row["image_id"] in drawn
        add_counts(of_drawn if is_drawn else of_others, row["counted_ids"], row["counts"])
        num_others += not is_drawn
    return of_drawn, of_others, num_others


def _fit(counts: _Counts) -> ConfidenceMap:
    unscored = dict(sorted(counts.unscored.items())[:20])
    total, correct = _pixels(counts.drawn)
    if not total.any():
        first = "; ".join(f"{image_id}: {reason}" for image_id, reason in list(unscored.items())[:3])
        raise ValueError(
            f"no mask could be compared with its true mask, and calibration learns from them. First: {first or 'none'}"
        )
    probability = fit_isotonic(total, correct)
    return ConfidenceMap(
        probability=tuple(probability.tolist()),
        image_ids=tuple(counts.image_ids),
        num_pixels=int(total.sum()),
        measured=_measure(counts.others, probability_levels(probability), num_images=counts.num_others),
        num_unscored=len(counts.unscored),
        unscored=unscored,
    )


def _measure(counts: NDArray[np.int64], levels: NDArray[np.uint8], *, num_images: int) -> Measured | None:
    """What the masks are worth as they are stored: counts go from each level of confidence to its calibrated one."""
    total, correct = _pixels(counts)
    if not total.any():
        logger.warning("every true mask is used to calibrate: none is left to measure the calibration on")
        return None
    calibrated = np.zeros_like(counts)
    np.add.at(calibrated.swapaxes(0, 1), levels, counts.swapaxes(0, 1))
    stated = np.arange(NUM_LEVELS) / (NUM_LEVELS - 1)
    return Measured(
        num_images=num_images,
        num_pixels=int(total.sum()),
        ece_before=expected_calibration_error(total, correct, stated),
        ece=expected_calibration_error(*_pixels(calibrated), stated),
        mean_iou={
            f"{coverage:g}": value
            for coverage, value in zip(COVERAGES, mean_iou_at_coverage(calibrated, COVERAGES).tolist(), strict=True)
        },
    )


def _pixels(counts: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All pixels and the right ones, per level."""
    return counts[2].sum(axis=1), counts[0].sum(axis=1)


def _read(uri: str) -> ConfidenceMap:
    content = json.loads(storage.read_bytes(uri))
    del content["masks"]
    measured = content.pop("measured")
    return ConfidenceMap(
        probability=tuple(content.pop("probability")),
        image_ids=tuple(content.pop("image_ids")),
        measured=Measured(**measured) if measured else None,
        **content,
    )


def calibration_table(confidence_map: ConfidenceMap) -> str:
    """What was fitted and what it is worth, as text."""
    lines = [f"fitted on {len(confidence_map.image_ids)} images, {confidence_map.num_pixels:,} pixels"]
    if confidence_map.num_unscored:
        lines.append(f"{confidence_map.num_unscored} true masks couldn't be compared")
    measured = confidence_map.measured
    if measured is None:
        return "\n".join([*lines, "no other image has a true mask to measure it on"])
    lines += [
        f"measured on {measured.num_images} others, {measured.num_pixels:,} pixels",
        f"expected calibration error  {measured.ece_before:.3f} before, {measured.ece:.3f} after",
        "surest pixels  " + "  ".join(f"{100 * float(coverage):3.0f} %" for coverage in measured.mean_iou),
        "mIoU           " + "  ".join(f"{100 * value:5.1f}" for value in measured.mean_iou.values()),
    ]
    return "\n".join(lines)
