"""Scores class activation maps, walked masks and refined masks against true masks, split by split."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import raypipe
from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.ops.metrics import mean_iou
from raypipe.outputs.load import Load, held
from raypipe.outputs.records import open_folder, read_summary, write_summary
from raypipe.pipelines.context import Context
from raypipe.pipelines.score_tables import class_csv
from raypipe.pipelines.tally import IMAGES, Matrices, Tallies, Tally, tally
from raypipe.results import Score
from raypipe.schema import MASKS, SEEDS, SHARD_DIGEST, columns
from raypipe.stages.score_masks import ScoreCams, ScoreMasks
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.collect import count, rows_digest
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)

RESULTS_FILE = "results.json"
TABLE_FILE = "classes.csv"
CONFUSION_FILE = "confusion.parquet"


THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 17))
"""Constant background thresholds at which class activation maps are cut; the best is scored."""

MADE, SEGMENTED = "masks", "segments"
"""Folders of the images' scores: of maps and masks, and of the segmentation network's masks."""

_CAMS = "cam_confusions"
"""Column of the matrices of class activation maps."""


def run_evaluate(
    context: Context, *, seeds: Artifact, masks: Artifact, segments: Artifact | None = None
) -> tuple[Artifact, list[Score]]:
    """Scores maps and masks on every split that has true masks, unless that is done already.

    Args:
        context: config and manifest; the config is that of the masks, without what the gates rejected.
        seeds: folder of class activation maps; may be missing.
        masks: folder of pseudo-masks.
        segments: folder of the segmentation network's masks; None where there are none.

    Returns:
        The folder with `results.json`, `confusion.parquet` and `images/`, and the scores, CAMs first.

    Raises:
        ValueError: if no row has a true mask.
    """
    config = context.config
    if not has_truth(context):
        raise ValueError("no row has a true mask (mask_uri is null everywhere); give the importer the masks' folder")
    scored = _run_scores(context, masks=masks, seeds=seeds)
    names = [config.refinement.method, config.walk.num_steps > 0, config.segmentation.method]
    provenance: dict[str, Any] = {
        "scores": _content(context, scored),
        # Scores are named by methods, and the threshold is of a split.
        "named": [*names, config.evaluation.splits],
    }
    segmented = None
    if segments is not None:
        segmented = _run_scores(context, masks=segments, seeds=None)
        provenance["segments"] = _content(context, segmented)
    evaluated = digest(provenance)
    folder = storage.join(config.out, "evaluate", evaluated)
    open_folder(folder, provenance)
    uri = storage.join(folder, RESULTS_FILE)
    if read_summary(folder) is None:
        scores = _score_run(context, scored, images=storage.join(folder, IMAGES, MADE))
        if segmented is not None:
            scores += _score_segments(context, segmented, images=storage.join(folder, IMAGES, SEGMENTED))
        results = {
            "raypipe": raypipe.__version__,
            "config": config.model_dump(mode="json"),
            "scores": [{**asdict(score), "confusion": None} for score in scores],
        }
        storage.write_bytes_atomic(storage.join(folder, CONFUSION_FILE), _confusions_file(scores))
        storage.write_bytes_atomic(storage.join(folder, TABLE_FILE), class_csv(scores).encode())
        storage.write_bytes_atomic(uri, json.dumps(results, indent=1).encode())
        write_summary(folder, {"num_scores": len(scores)})
    found = [Score(**score) for score in json.loads(storage.read_bytes(uri))["scores"]]
    return Artifact(folder, evaluated), found


def scores_plan(context: Context, *, masks: Artifact, seeds: Artifact | None) -> Plan:
    """ScoreCams → ScoreMasks, of the outputs of two streams; without seeds of the masks alone."""
    num_classes = len(context.classes) + 1
    cams = ScoreCams(
        num_classes=num_classes,
        thresholds=THRESHOLDS,
        cam_stride=context.config.cams.out_stride,
        max_side=context.config.images.max_side,
    )
    score = ScoreMasks(num_classes=num_classes)
    stages = (score,) if seeds is None else (cams, score)
    maps = columns(SEEDS, "height", "width", "class_ids", "cam", "cam_height", "cam_width")
    load = Load(outputs=masks, columns=columns(MASKS, "mask", "walk_mask"), optional=True)
    return Plan(
        name="scores",
        takes=(load,) if seeds is None else (Load(outputs=seeds, columns=maps, prefix="seeds_", optional=True), load),
        stages=stages,
        schema=pa.schema([pa.field("image_id", pa.string()), *(field for stage in stages for field in stage.writes)]),
        classes=context.classes,
    )


def _run_scores(context: Context, *, masks: Artifact, seeds: Artifact | None) -> Artifact:
    """Scores the images that aren't scored yet; the folder of their matrices."""
    plan = scores_plan(context, masks=masks, seeds=seeds)
    try:
        context.run(plan, truth_rows(context), budget=Budget(max_fraction=1))
    except BudgetExceeded as error:  # no true mask could be compared: the table says so
        logger.warning("evaluate: %s", error)
    return plan.artifact(context.config.out)


def _content(context: Context, scored: Artifact) -> list[str]:
    """What the scores of the present rows depend on: each row's digest, which is of its masks and maps."""
    rows = held(truth_rows(context), scored)
    return [scored.digest, rows_digest(rows, ["split", SHARD_DIGEST])]


def read_confusions(folder: str) -> dict[tuple[str, str], NDArray[np.int64]]:
    """(stage, split) to the confusion matrix (C + 1, C + 1) of a finished evaluation; empty where it kept none."""
    uri = storage.join(folder, CONFUSION_FILE)
    if not storage.exists(uri):
        return {}
    table = pq.read_table(pa.BufferReader(storage.read_bytes(uri)))
    num_classes = int(table.schema.metadata[b"num_classes"])
    matrices: dict[tuple[str, str], NDArray[np.int64]] = {}
    for row in table.to_pylist():
        zeros = np.zeros((num_classes, num_classes), np.int64)
        matrices.setdefault((row["stage"], row["split"]), zeros)[row["truth"], row["mask"]] = row["pixels"]
    return matrices


def _confusions_file(scores: Sequence[Score]) -> bytes:
    """A row a pair of class ids that has pixels: stage, split, truth, mask, pixels."""
    rows = []
    for score in scores:
        assert score.confusion is not None  # counted here, not read back
        for truth, mask in np.argwhere(score.confusion).tolist():
            pair = {"truth": truth, "mask": mask, "pixels": int(score.confusion[truth, mask])}
            rows.append({"stage": score.stage, "split": score.split, **pair})
    schema = pa.schema(
        [
            *((name, pa.string()) for name in ("stage", "split")),
            *((n, pa.int64()) for n in ("truth", "mask", "pixels")),
        ],
        metadata={"num_classes": str(len(scores[0].class_iou) if scores else 0)},
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), buffer)
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def score_segments(context: Context, segments: Artifact) -> list[Score]:
    """Scores of the segmentation network's masks alone."""
    return _score_segments(context, _run_scores(context, masks=segments, seeds=None))


def _score_segments(context: Context, scored: Artifact, *, images: str | None = None) -> list[Score]:
    method = context.config.segmentation.method
    plain = ("segmenter", "none")
    names = {"confusion": plain} if method == "none" else {"walk_confusion": plain, "confusion": ("segmenter", method)}
    return _mask_scores(context, _tally(context, scored, names, images=images), names)


def has_truth(context: Context) -> bool:
    """True where a row that is to be scored has a true mask."""
    return bool(count(truth_rows(context)))


def truth_rows(context: Context) -> Rows:
    """Manifest rows that are scored: those of the splits to score that have a true mask."""
    return context.rows(context.config.evaluation.splits).where(lambda rows: pc.is_valid(rows["mask_uri"]))


def _score_run(context: Context, scored: Artifact, *, images: str) -> list[Score]:
    """Scores of the maps, of the walked masks and of the refined ones."""
    method, note = context.config.refinement.method, "" if context.config.walk.num_steps else ", no walk"
    plain = ("walk", f"none{note}")
    names = {"confusion": plain} if method == "none" else {"walk_confusion": plain, "confusion": (method, method)}
    tallies = _tally(context, scored, {_CAMS: ("cam", ""), **names}, images=images)
    return _cam_scores(context, tallies[_CAMS]) + _mask_scores(context, tallies, names)


def _tally(context: Context, scored: Artifact, names: Mapping[str, tuple[str, str]], *, images: str | None) -> Tallies:
    matrices = {
        column: Matrices(len(THRESHOLDS), "cam_truth_digest", stage)
        if column == _CAMS
        else Matrices(1, "truth_digest", stage)
        for column, (stage, _) in names.items()
    }
    rows = truth_rows(context).select(["image_id", "split"])
    return tally(scored, rows, matrices, num_classes=len(context.classes) + 1, images=images)


def _cam_scores(context: Context, tallies: dict[str, Tally]) -> list[Score]:
    """Scores at the threshold that is the best on the first split, in the order in which the config names them."""
    scored = [split for split in context.config.evaluation.splits or sorted(tallies) if split in tallies]
    scored = [split for split in scored if tallies[split].num_images]
    if not scored:
        return []
    best = int(np.argmax([mean_iou(confusion) for confusion in tallies[scored[0]].confusion]))
    how = f"background {THRESHOLDS[best]:g}, best on {scored[0]}"
    return [
        tally.score(stage="cam", split=split, post_processing=how, classes=context.classes, index=best)
        for split, tally in tallies.items()
    ]


def _mask_scores(context: Context, tallies: Tallies, names: dict[str, tuple[str, str]]) -> list[Score]:
    return [
        tally.score(stage=name, split=split, post_processing=post_processing, classes=context.classes)
        for column, (name, post_processing) in names.items()
        for split, tally in tallies[column].items()
    ]
