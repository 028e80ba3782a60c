"""Calibrates the confidence of masks: counts how often it is right where truth is known, and applies what follows."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import decode_mask, encode_png
from raypipe.data.truth import as_shown, read_truth
from raypipe.ops.calibration import NUM_LEVELS, confidence_counts
from raypipe.schema import IGNORE, MASKS, columns
from raypipe.stages.base import Row, Stage
from raypipe.stages.encode import sums_of_classes


def pack_counts(counts: NDArray[np.int64]) -> tuple[list[int], bytes]:
    """Counts (3, 256, C) as columns: the class ids that occur, and the bytes of theirs alone."""
    present = np.flatnonzero(counts.any(axis=(0, 1)))
    return present.tolist(), counts[..., present].astype("<i4").tobytes()


def add_counts(counts: NDArray[np.int64], class_ids: Sequence[int], data: bytes) -> None:
    """Adds what `pack_counts` gave to counts (3, 256, C)."""
    parts = np.frombuffer(data, dtype="<i4").reshape(3, NUM_LEVELS, len(class_ids))
    counts[..., list(class_ids)] += parts


@dataclass(kw_only=True)
class CountHits(Stage):
    """Pixels per level of confidence and class: right, predicted, true."""

    num_classes: int
    """With background."""

    reads = ("image_uri", "mask_uri", "mask", "confidence")
    writes = pa.schema([pa.field("counted_ids", pa.list_(pa.uint8())), pa.field("counts", pa.binary())])

    def process(self, row: Row) -> Row:
        """Counts one image's pixels.

        Raises:
            ValueError: if the true mask has another size, or values that are no class ids.
        """
        truth, _ = read_truth(row["mask_uri"], num_classes=self.num_classes)
        mask, confidence = decode_mask(row["mask"]), decode_mask(row["confidence"])
        truth = as_shown(truth, size=mask.shape, image=lambda: storage.read_bytes(row["image_uri"]))
        counted_ids, data = pack_counts(confidence_counts(truth, mask, confidence, num_classes=self.num_classes))
        return {"counted_ids": counted_ids, "counts": data}


def probability_levels(probability: Sequence[float] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """Probabilities as confidence is stored: round(255 P)."""
    levels: NDArray[np.uint8] = np.rint(255 * np.asarray(probability)).astype(np.uint8)
    return levels


@dataclass(kw_only=True)
class CalibrateMasks(Stage):
    """Writes the probability of being right as confidence, and 255 into the mask where the risk is too high."""

    probability: tuple[float, ...]
    """Of being right, for each level of confidence 0..255."""
    max_risk: float | None
    """Largest 1 - P of a pixel that keeps its label; None keeps all."""

    reads = ("mask", "confidence", "height", "width")
    writes = columns(MASKS, "class_ids", "mask", "confidence", "areas", "mean_confidences")

    def setup(self, device: str) -> None:  # noqa: ARG002 - there is no network
        """Makes the tables that pixels are looked up in."""
        self.levels = probability_levels(self.probability)
        self.risky = np.asarray(self.probability) < (0 if self.max_risk is None else 1 - self.max_risk)

    def process(self, row: Row) -> Row:
        """Looks up one image's pixels."""
        mask, confidence = (decode_mask(row[name], size=(row["height"], row["width"])) for name in self.reads[:2])
        kept = np.where(self.risky[confidence], np.uint8(IGNORE), mask)
        calibrated = self.levels[confidence]
        sums = sums_of_classes(kept, calibrated)
        return {"mask": encode_png(kept), "confidence": encode_png(calibrated), **sums}
