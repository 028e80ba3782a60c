"""How often each class is named and found, from the small columns of the masks; no mask is decoded."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.data.rows import Part, Rows
from raypipe.pages.areas import class_areas, class_labels
from raypipe.reports.content import ClassCount, Counts
from raypipe.schema import MASKS, columns
from raypipe.streams.collect import reduce_outputs

_COLUMNS = columns(MASKS, "image_id", "class_ids", "areas", "predicted_iou")


class _Sums:
    """Sums over some masks, which add up."""

    def __init__(self, num_classes: int) -> None:
        self.num_masks = self.num_empty = 0
        self.by_class = np.zeros((5, num_classes))
        """Labelled, of them shown, their areas, of those labelled predicted, predicted IoU."""
        self.predicted = np.zeros(2)
        """Masks of images with labels whose IoU is predicted, and the sum of it."""

    def add(self, labels: NDArray[np.bool_], areas: NDArray[np.float64], predicted_iou: NDArray[np.float64]) -> None:
        """Adds masks: labels and areas (N, C), predicted IoU (N), nan where it isn't known."""
        any_label, known = labels.any(axis=1), np.isfinite(predicted_iou)
        shown, iou = labels & (areas > 0), np.where(known, predicted_iou, 0)
        self.num_masks += len(labels)
        self.num_empty += int((any_label & ~(areas > 0).any(axis=1)).sum())
        predicted = labels & known[:, None]
        rows = (labels, shown, np.where(shown, areas, 0), predicted, predicted * iou[:, None])
        self.by_class += np.stack([row.sum(axis=0) for row in rows])
        self.predicted += ((any_label & known).sum(), iou[any_label].sum())

    def merge(self, other: "_Sums") -> None:
        """Adds what was summed of other masks."""
        self.num_masks += other.num_masks
        self.num_empty += other.num_empty
        self.by_class += other.by_class
        self.predicted += other.predicted


def count_masks(rows: Rows, masks: Artifact, *, classes: Sequence[str], num_labelled: NDArray[np.int64]) -> Counts:
    """What the masks hold, by class.

    Args:
        rows: of the manifest: image_id and labels, null where nobody looked.
        masks: folder of masks.
        classes: in class-id order.
        num_labelled: images of the manifest with each label (C).
    """
    sums = _Sums(len(classes))
    rows = rows.select(["image_id", "labels"])
    for of_part in reduce_outputs(masks, rows, _COLUMNS, partial(_sum_part, tuple(classes))):
        sums.merge(of_part)
    labelled, shown, areas, predicted, predicted_iou = sums.by_class
    with np.errstate(invalid="ignore"):
        mean_areas, mean_iou = areas / shown, predicted_iou / predicted
        overall = float(np.divide(sums.predicted[1], sums.predicted[0]))
    return Counts(
        num_masks=sums.num_masks,
        num_empty=sums.num_empty,
        predicted_iou=overall,
        classes=[
            ClassCount(
                name=name,
                num_labelled=int(num_labelled[index]),
                num_masks=int(labelled[index]),
                num_shown=int(shown[index]),
                area=float(mean_areas[index]),
                predicted_iou=float(mean_iou[index]),
            )
            for index, name in enumerate(classes)
        ],
    )


def _sum_part(classes: Sequence[str], tables: Iterator[pa.Table], _: Part) -> _Sums:
    sums = _Sums(len(classes))
    for table in tables:
        predicted_iou = table["predicted_iou"].to_numpy().astype(np.float64)
        sums.add(class_labels(table, classes), class_areas(table, len(classes)), predicted_iou)
    return sums
