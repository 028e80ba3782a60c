"""Curves that a report shows: risk over coverage, and the plots of sweeps of the same networks."""

import json
from collections.abc import Sequence

import numpy as np

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.shards import iter_shards
from raypipe.ops.risk import risk_at_coverage
from raypipe.outputs.ledger import SHARDS
from raypipe.pipelines.calibrate import CALIBRATION_FILE
from raypipe.pipelines.tally import read_image_scores
from raypipe.pipelines.walk.sweep import CHOICE_FILE
from raypipe.reports.content import RiskCurves, SweepPlots
from raypipe.results import Measured, Score
from raypipe.uri import name_of, parent

COVERAGES = tuple(round(0.02 * number, 2) for number in range(1, 51))
_MIN_IMAGES = 10
"""Of fewer images a curve says nothing."""

_MAX_FOUND = 3
"""Calibrations and sweeps that are shown."""


def collect_risks(
    out: str, *, masks: Artifact, evaluation: Artifact | None, scores: Sequence[Score]
) -> list[RiskCurves]:
    """Risk of pixels by calibrated confidence, and of images by predicted IoU, as far as they are known.

    Args:
        out: the run's folder.
        masks: folder of masks.
        evaluation: folder of the scores; None where there are none.
        scores: of the evaluation; those of the walked masks are compared with their prediction.
    """
    walked = [score for score in scores if score.stage == "walk"]
    return [
        *_by_confidence(out, masks=masks),
        *(found for score in walked if evaluation for found in _by_prediction(masks.uri, evaluation, score)),
    ]


def _by_confidence(out: str, *, masks: Artifact) -> list[RiskCurves]:
    """What `raypipe calibrate` has measured on these masks."""
    curves = []
    for uri in storage.list_files(storage.join(out, "calibrate"), suffix=CALIBRATION_FILE):
        content = json.loads(storage.read_bytes(uri))
        if content["masks"] != masks.digest or content["measured"] is None:
            continue
        measured = Measured(**content["measured"])
        coverages = sorted(measured.mean_iou, key=float)
        curves.append(
            RiskCurves(
                title="Pixels, by calibrated confidence",
                note=(
                    f"1 − mIoU of the surest pixels of {measured.num_images:,} images that the calibration never saw. "
                    f"Fitted on {len(content['image_ids']):,} others; the expected calibration error fell from "
                    f"{measured.ece_before:.3f} to {measured.ece:.3f}."
                ),
                coverages=[float(coverage) for coverage in coverages],
                risks={"calibrated": [1 - measured.mean_iou[coverage] for coverage in coverages]},
            )
        )
    return curves[:_MAX_FOUND]


def _by_prediction(masks: str, evaluation: Artifact, score: Score) -> list[RiskCurves]:
    """Images of one split, ranked by the IoU that was predicted without truth, against what truth says."""
    iou = {
        row["image_id"]: row["mean_iou"]
        for table in read_image_scores(evaluation.uri, stage=score.stage)
        for row in table.to_pylist()
        if row["split"] == score.split
    }
    pairs = [
        (row["predicted_iou"], iou[row["image_id"]])
        for _, table in iter_shards(storage.join(masks, SHARDS), columns=["image_id", "predicted_iou"])
        for row in table.to_pylist()
        if row["image_id"] in iou
    ]
    known = np.array(pairs, np.float64).reshape(-1, 2)
    known = known[np.isfinite(known).all(axis=1)]
    if len(known) < _MIN_IMAGES:
        return []
    certainty, loss = known[:, 0], 1 - known[:, 1]
    orders = {"predicted IoU": certainty, "in no order": np.zeros_like(loss), "best order": -loss}
    return [
        RiskCurves(
            title=f"Images of {score.split}, by predicted IoU",
            note=(
                f"Mean of 1 − IoU over the surest of {len(known):,} images, walked masks. The prediction needs no "
                "truth; the best order is what truth itself would give."
            ),
            coverages=COVERAGES,
            risks={name: risk_at_coverage(order, loss, COVERAGES).tolist() for name, order in orders.items()},
        )
    ]


def collect_sweeps(out: str, *, maps: Artifact | None, affinity: Artifact | None) -> list[SweepPlots]:
    """Plots of the sweeps of these maps and affinities in the run's folder.

    Args:
        out: the run's folder.
        maps: the classifier's checkpoint, or what given seeds are known by.
        affinity: the AffinityNet's checkpoint; None walks along colours.
    """
    sweeps = []
    for uri in storage.list_files(storage.join(out, "sweep"), suffix=CHOICE_FILE):
        folder = parent(uri)
        choice = json.loads(storage.read_bytes(uri))
        of_run = {"maps": maps and maps.digest, "affinity": affinity and affinity.digest}
        if choice["networks"] != of_run:
            continue
        facts = {
            "chosen": ", ".join(f"{name} {value:g}" for name, value in choice["chosen"].items()),
            "images": f"{choice['num_images']:,}",
            "true masks used": f"{choice['num_labelled']:,}",
            "score": f"{choice['score']:.4f} (95 % interval {choice['low']:.4f} to {choice['high']:.4f})",
        }
        plots = {
            name_of(svg).removesuffix(".svg").replace("_", " "): storage.read_bytes(svg)
            for svg in storage.list_files(folder, suffix=".svg")
        }
        sweeps.append(SweepPlots(name=name_of(folder), facts=facts, plots=plots))
    return sweeps[:_MAX_FOUND]
