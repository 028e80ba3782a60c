"""Compares masks and class activation maps with true masks, one confusion matrix a row.

Matrices add up, so rows can be counted anywhere and in any order.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.arrays import decode_cam
from raypipe.data.images import decode_mask
from raypipe.data.truth import as_shown, read_truth
from raypipe.ops.cam import sample_cam
from raypipe.ops.metrics import confusion_matrix
from raypipe.ops.unknown import evidence, sample_known
from raypipe.stages.base import Row, Stage


def pack(matrices: NDArray[np.int64]) -> bytes:
    """Matrices as bytes of a column: place and number of what isn't 0, as an image has few of many classes."""
    flat = matrices.reshape(-1)
    places = np.flatnonzero(flat)
    return np.stack([places, flat[places]], axis=1).astype("<i8").tobytes()


def unpack(data: bytes, *, num_matrices: int, num_classes: int) -> NDArray[np.int64]:
    """The matrices (num_matrices, num_classes, num_classes) of `pack`."""
    matrices = np.zeros(num_matrices * num_classes**2, np.int64)
    places, numbers = np.frombuffer(data, "<i8").reshape(-1, 2).T
    matrices[places] = numbers
    return matrices.reshape(num_matrices, num_classes, num_classes)


@dataclass(kw_only=True)
class ScoreMasks(Stage):
    """Confusion matrices of `mask` and, where there is one, of `walk_mask`; null without a mask."""

    num_classes: int
    """With background."""

    reads = ("image_uri", "mask_uri", "mask", "walk_mask")
    writes = pa.schema({"confusion": pa.binary(), "walk_confusion": pa.binary(), "truth_digest": pa.string()})

    def process(self, row: Row) -> Row:
        """Scores one mask.

        Raises:
            ValueError: if the true mask has another size, or values that are no class ids.
        """
        if row["mask"] is None:
            return dict.fromkeys(self.writes.names)
        truth, truth_digest = read_truth(row["mask_uri"], num_classes=self.num_classes)
        mask, walk_mask = decode_mask(row["mask"]), row["walk_mask"]
        truth = as_shown(truth, size=mask.shape, image=lambda: storage.read_bytes(row["image_uri"]))
        return {
            "confusion": self._score(truth, mask),
            "walk_confusion": None if walk_mask is None else self._score(truth, decode_mask(walk_mask)),
            "truth_digest": truth_digest,
        }

    def _score(self, truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> bytes:
        return pack(confusion_matrix(truth, mask, num_classes=self.num_classes))


@dataclass(kw_only=True)
class ScoreCams(Stage):
    """Confusion matrices of the maps cut at constant background thresholds, one a threshold; null without maps.

    Background is where no map reaches the threshold, and where none is known. Maps have no size of their own to compare
    with the true mask's, so the image's working size is.
    """

    num_classes: int
    """With background."""
    thresholds: tuple[float, ...]
    cam_stride: int
    """Pixels per cell of the maps."""
    max_side: int
    """Longer images were reduced to this long side, in pixels."""

    reads = ("image_uri", "mask_uri", "height", "width", "class_ids", "cam", "cam_height", "cam_width")
    writes = pa.schema({"cam_confusions": pa.binary(), "cam_truth_digest": pa.string()})

    def process(self, row: Row) -> Row:
        """Scores one image's maps at the true mask's size.

        Raises:
            ValueError: as `ScoreMasks`.
        """
        if row["cam"] is None:
            return dict.fromkeys(self.writes.names)
        truth, truth_digest = read_truth(row["mask_uri"], num_classes=self.num_classes)
        size = (row["height"], row["width"])
        truth = as_shown(
            truth,
            size=size,
            image=lambda: storage.read_bytes(row["image_uri"]),
            max_side=None if max(size) > self.max_side else self.max_side,  # worked on in tiles, at full size
        )
        height, width = truth.shape
        cam = decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])
        best, best_score = np.zeros(truth.shape, np.uint8), np.zeros(truth.shape, np.float32)
        if len(cam):
            maps = torch.from_numpy(cam)
            sample = sample_known if bool(maps.isnan().any()) else sample_cam
            full = evidence(sample(maps, size=(height, width), stride=self.cam_stride)).numpy()
            best = np.array(row["class_ids"], np.uint8)[full.argmax(axis=0)]
            best_score = full.max(axis=0)
        matrices = [
            confusion_matrix(truth, np.where(best_score > threshold, best, 0), num_classes=self.num_classes)
            for threshold in self.thresholds
        ]
        return {"cam_confusions": pack(np.stack(matrices)), "cam_truth_digest": truth_digest}
