"""How good a finished run's masks are image by image, and how well their predicted IoU ranks them.

    python benchmarks/image_scores.py voc/config.yaml

Images are those that have a mask and a true one, by split; pixels without truth don't count. Intervals are those of
1,000 bootstraps of the images.
"""

from typing import Annotated

import numpy as np
import typer
from image_walks import Masks, counts, interval
from measure import table
from scipy.stats import spearmanr

import raypipe
from raypipe.data.truth import read_truth

MOSTLY_OBJECTS = 0.8


def main(
    config: Annotated[str, typer.Argument(help="config of a finished run")],
    overrides: Annotated[list[str] | None, typer.Argument()] = None,
) -> None:
    """Prints a table."""
    run = raypipe.open_run(config, *(overrides or []))
    num_classes = len(run.classes) + 1
    truths = {row["image_id"]: row for row in run.manifest.table.to_pylist() if row["mask_uri"]}
    found: dict[str, list[tuple[list[np.ndarray], float]]] = {}
    for mask in run.masks:
        if row := truths.get(mask.image_id):
            truth, _ = read_truth(row["mask_uri"], num_classes=num_classes)
            scored = counts(mask.array, truth, num_classes), mask.predicted_iou
            for split in ("all", row["split"]):
                found.setdefault(split, []).append(scored)
    rows = []
    for split, images in found.items():
        masks = Masks(*np.array([each for each, _ in images], np.float64).swapaxes(0, 1))
        predicted, true = np.array([each for _, each in images]), masks.image_iou / 100
        large = masks.objects > MOSTLY_OBJECTS
        rank = interval(len(true), lambda index: spearmanr(predicted[index], true[index])[0])  # noqa: B023
        rows.append(
            (
                *(split, len(true), f"{masks.mean_iou:.1f}", f"{masks.worst_tenth:.1f}", f"{100 * true.mean():.1f}"),
                f"{100 * true[large].mean():.1f} (n = {large.sum()})" if large.any() else "",
                f"{spearmanr(predicted, true)[0]:.3f} ({rank})",
                f"{(predicted - true).mean():+.3f}",
            )
        )
    names = (
        "split",
        "n",
        "mIoU",
        "worst tenth",
        "mean over images",
        "truth covers over 80 %",
        "Spearman (95 %)",
        "bias",
    )
    typer.echo(table(names, rows))


if __name__ == "__main__":
    typer.run(main)
