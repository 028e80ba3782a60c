"""Scores as tables: mean IoU of every stage on every split, and the IoU of each class as papers print it."""

import csv
import io
from collections.abc import Sequence

from raypipe.results import Score

_NAME_LENGTH = 6
_CLASSES_PER_BLOCK = 21


def scores_table(scores: Sequence[Score]) -> str:
    """A row a stage and split."""
    header = ("split", "images", "stage", "mIoU", "post-processing")
    rows = [
        (score.split, str(score.num_images), score.stage, f"{100 * score.mean_iou:.1f}", score.post_processing)
        for score in scores
    ]
    return _aligned([header, *rows])


def class_table(scores: Sequence[Score]) -> str:
    """A column a class, background first and the mean last, in percent; many classes come in several blocks.

    Names are cut to six letters; the CSV file has them whole.
    """
    names = list(scores[0].class_iou)
    blocks = []
    for start in range(0, len(names), _CLASSES_PER_BLOCK):
        chosen = names[start : start + _CLASSES_PER_BLOCK]
        rows = [("stage", "split", *(name[:_NAME_LENGTH] for name in chosen), "mean")]
        rows += [
            (score.stage, score.split, *(_percent(score.class_iou[name]) for name in chosen), _percent(score.mean_iou))
            for score in scores
        ]
        blocks.append(_aligned(rows))
    return "\n\n".join(blocks)


def class_csv(scores: Sequence[Score]) -> str:
    """The same as CSV: stage, split, images, post_processing, one column a class, mean_iou; IoUs in 0..1."""
    buffer = io.StringIO()
    writer = csv.writer(buffer)
    writer.writerow(["stage", "split", "images", "post_processing", *scores[0].class_iou, "mean_iou"])
    for score in scores:
        writer.writerow(
            [
                *(score.stage, score.split, score.num_images, score.post_processing),
                *(f"{value:.6f}" for value in (*score.class_iou.values(), score.mean_iou)),
            ]
        )
    return buffer.getvalue()


def _percent(value: float) -> str:
    return "–" if value != value else f"{100 * value:.1f}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
