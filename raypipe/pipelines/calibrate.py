"""Calibrated masks: their confidence is the probability that a pixel's label is right, learned from a few true masks.

The images to learn from are drawn by a hash of (seed, image_id), so they are the same on every cluster; on the other
images with true masks is measured what came of it.
"""

import json
import logging
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.ops.calibration import NUM_LEVELS, expected_calibration_error, fit_isotonic, mean_iou_at_coverage
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import held
from raypipe.results import Measured, StreamSummary
from raypipe.schema import MASKS
from raypipe.stages.calibrate_masks import CalibrateMasks, CountHits, add_counts, probability_levels
from raypipe.stages.load_shards import LoadConfidences, LoadMaskRows
from raypipe.streams.plan import Plan
from raypipe.streams.records import open_folder, read_summary, set_digest, write_summary

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "calibration.json"
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


def rows_with_truth(context: Context) -> pa.Table:
    """Rows that have masks and true masks.

    Raises:
        ValueError: if there is none.
    """
    rows = context.rows(context.config.splits.masks)
    rows = rows.filter(pc.is_valid(rows["mask_uri"]))
    if not rows.num_rows:
        raise ValueError(
            f"no row of splits.masks={context.config.splits.masks} has a true mask (mask_uri), and calibration learns "
            "from those; 50 are enough: give the importer their folder"
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
    rows = held(rows.select(["image_id", "mask_uri"]), masks)
    provenance = plan.provenance() | {
        "rows": set_digest(rows, plan.row_columns()),
        "drawn": [config.calibration.num_images, config.seed],
    }
    calibrated = digest(provenance)
    folder = storage.join(config.out, "calibrate", calibrated)
    open_folder(folder, provenance)
    uri = storage.join(folder, CALIBRATION_FILE)
    if read_summary(folder) is None:
        fitted = _fit(_count(context, plan, rows))
        content = asdict(fitted) | {"masks": masks.digest}
        storage.write_bytes_atomic(uri, json.dumps(content, indent=1).encode())
        write_summary(folder, {"num_images": len(fitted.image_ids)})
    return Artifact(folder, calibrated), _read(uri)


def count_plan(context: Context, *, masks: Artifact) -> Plan:
    """LoadConfidences → CountHits."""
    return Plan(
        name="calibrate",
        stages=(LoadConfidences(masks=masks), CountHits(num_classes=len(context.classes) + 1)),
        schema=pa.schema([pa.field("image_id", pa.string()), *CountHits.writes]),
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
    plan = Plan(
        name="calibrated",
        stages=(LoadMaskRows(masks=masks), calibrate),
        schema=MASKS,
        classes=context.classes,
    )
    return context.run(plan, held(context.rows(config.splits.masks).select(["image_id"]), masks))


class _Tally:
    """Counts of the images that are drawn, kept apart until it is clear which they are, and of all others together."""

    def __init__(self, *, seed: int, num_images: int, num_classes: int) -> None:
        self.seed = seed
        self.num_images = num_images
        self.drawn: dict[tuple[str, str], dict[str, Any]] = {}
        self.num_others = 0
        self.others = self.zeros(num_classes)
        self.unscored: dict[str, str] = {}

    @staticmethod
    def zeros(num_classes: int) -> NDArray[np.int64]:
        return np.zeros((3, NUM_LEVELS, num_classes), np.int64)

    def add(self, row: dict[str, Any]) -> None:
        """Adds an image. The drawn are those with the least hashes among all that can be compared."""
        image_id = row["image_id"]
        if row["error_stage"] is not None:
            self.unscored[image_id] = row["error_reason"]
            return
        self.drawn[storage.digest([self.seed, image_id]), image_id] = row
        if len(self.drawn) > self.num_images:
            other = self.drawn.pop(max(self.drawn))
            add_counts(self.others, other["counted_ids"], other["counts"])
            self.num_others += 1


def _count(context: Context, plan: Plan, rows: pa.Table) -> _Tally:
    config, num_classes = context.config, len(context.classes) + 1
    num_images = config.calibration.num_images
    tally = _Tally(seed=config.seed, num_images=num_images, num_classes=num_classes)
    if rows.num_rows:
        for batch in context.compute(plan, rows):
            for row in batch.to_pylist():
                tally.add(row)
    return tally


def _fit(tally: _Tally) -> ConfidenceMap:
    unscored = dict(sorted(tally.unscored.items())[:20])
    counts = tally.zeros(tally.others.shape[-1])
    for row in tally.drawn.values():
        add_counts(counts, row["counted_ids"], row["counts"])
    total, correct = _pixels(counts)
    if not total.any():
        first = "; ".join(f"{image_id}: {reason}" for image_id, reason in list(unscored.items())[:3])
        raise ValueError(
            f"no mask could be compared with its true mask, and calibration learns from them. First: {first or 'none'}"
        )
    probability = fit_isotonic(total, correct)
    return ConfidenceMap(
        probability=tuple(probability.tolist()),
        image_ids=tuple(sorted(image_id for _, image_id in tally.drawn)),
        num_pixels=int(total.sum()),
        measured=_measure(tally.others, probability_levels(probability), num_images=tally.num_others),
        num_unscored=len(tally.unscored),
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
