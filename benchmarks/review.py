"""The review queue: how much error the first tenth of it holds, against a tenth drawn at random.

    python benchmarks/review.py CONFIG.yaml MASKS --split train --split train_aug

CONFIG names the manifest, whose true masks are read; MASKS is the folder of a run's masks. A correction is taken to
replace the mask by the true one.
"""

from typing import Annotated

import numpy as np
import pyarrow.compute as pc
import typer
from measure import table
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.images import decode_mask
from raypipe.data.truth import read_truth
from raypipe.ops.metrics import confusion_matrix, mean_iou
from raypipe.pages.review import rank
from raypipe.pipelines.context import open_context
from raypipe.stages.base import Row
from raypipe.streams.collect import collect

Confusions = NDArray[np.int64]


def read_confusions(rows: list[Row], truths: dict[str, str], num_classes: int) -> Confusions:
    """A confusion matrix a mask."""
    matrices = []
    for row in rows:
        mask = decode_mask(row["mask"])
        truth, _ = read_truth(truths[row["image_id"]], num_classes=num_classes)
        matrices.append(confusion_matrix(truth, mask, num_classes=num_classes))
    return np.stack(matrices)


def corrected(confusions: Confusions, chosen: NDArray[np.int64]) -> tuple[float, float]:
    """Share of the wrong pixels that lie in the chosen masks, and the mean IoU when these are right."""
    wrong = confusions.sum(axis=(1, 2)) - np.trace(confusions, axis1=1, axis2=2)
    after = confusions.sum(axis=0) - confusions[chosen].sum(axis=0)
    after += np.diag(confusions[chosen].sum(axis=(0, 2)))
    return float(wrong[chosen].sum() / wrong.sum()), mean_iou(after)


def main(
    config: str,
    masks: str,
    split: Annotated[list[str], typer.Option()],
    fraction: float = 0.1,
    num_draws: int = 200,
) -> None:
    """Prints a table: which masks are corrected, their share of all error, mean IoU before and after."""
    context = open_context(load_config(storage.read_bytes(config).decode()))
    rows = context.rows(split).where(lambda table: pc.is_valid(table["mask_uri"]))
    queue = rank(rows, Artifact(masks, "given"), classes=context.classes, num_images=rows.most)[0]
    truths = {row["image_id"]: row["mask_uri"] for row in collect(rows).to_pylist()}
    confusions = read_confusions(queue, truths, len(context.classes) + 1)
    number, before = round(fraction * len(queue)), mean_iou(confusions.sum(axis=0))
    wrong = confusions.sum(axis=(1, 2)) - np.trace(confusions, axis1=1, axis2=2)
    doubts = np.array([row["predicted_iou"] for row in queue])
    orders = {
        "by expected gain": np.arange(len(queue)),
        "by predicted IoU alone": np.argsort(doubts, kind="stable"),
        "by true number of wrong pixels": np.argsort(-wrong, kind="stable"),
    }
    random = np.random.default_rng(0)
    draws = [corrected(confusions, random.permutation(len(queue))[:number]) for _ in range(num_draws)]
    results = {"at random": (np.mean(draws, axis=0), np.std(draws, axis=0))}
    results |= {name: (corrected(confusions, order[:number]), (0, 0)) for name, order in orders.items()}
    print(f"{len(queue)} masks, {number} corrected; before: {100 * before:.1f} mIoU")
    print(
        table(
            ("which", "% of the wrong pixels", "mIoU after", "gain"),
            [
                (
                    name,
                    f"{100 * share:.1f}" + (f" ± {100 * share_spread:.1f}" if share_spread else ""),
                    f"{100 * after:.1f}",
                    f"{100 * (after - before):+.1f}" + (f" ± {100 * spread:.1f}" if spread else ""),
                )
                for name, ((share, after), (share_spread, spread)) in results.items()
            ],
        )
    )


if __name__ == "__main__":
    typer.run(main)
