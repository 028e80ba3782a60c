"""Scores class activation maps, walked masks and refined masks against true masks, split by split."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import raypipe
from raypipe import storage
from raypipe.artifacts import Artifact, digest
from raypipe.ops.metrics import iou, mean_iou
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import locate
from raypipe.pipelines.score_tables import class_csv
from raypipe.results import Score
from raypipe.schema import SHARD_URI
from raypipe.stages.load_shards import LoadMasks, LoadSeeds
from raypipe.stages.score_masks import ScoreCams, ScoreMasks, unpack
from raypipe.streams.plan import Plan
from raypipe.streams.records import open_folder, read_summary, set_digest, write_summary

RESULTS_FILE = "results.json"
TABLE_FILE = "classes.csv"
CONFUSION_FILE = "confusion.parquet"


@dataclass
class _Tally:
    """Confusion matrices of one split, added up."""

    confusion: NDArray[np.int64]
    image_iou: dict[str, float] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    unscored: dict[str, str] = field(default_factory=dict)

    def add(self, row: dict[str, Any], column: str) -> None:
        """Adds a row's matrices."""
        if row["error_stage"] is not None:
            self.unscored[row["image_id"]] = row["error_reason"]
            return
        if row[column] is None:  # there is no such output of this row
            return
        matrices = unpack(row[column], num_classes=self.confusion.shape[-1])
        self.confusion += matrices
        self.digests[row["image_id"]] = row["cam_truth_digest" if column.startswith("cam") else "truth_digest"]
        self.image_iou[row["image_id"]] = round(mean_iou(matrices[0]), 4)

    def score(self, *, stage: str, split: str, post_processing: str, classes: tuple[str, ...], index: int = 0) -> Score:
        """The table's row of one of the matrices."""
        confusion = self.confusion[index]
        names = ("background", *classes)
        return Score(
            stage=stage,
            split=split,
            num_images=len(self.digests),
            mean_iou=mean_iou(confusion),
            class_iou={name: float(value) for name, value in zip(names, iou(confusion), strict=True)},
            post_processing=post_processing,
            truth_digest=hashlib.sha256(json.dumps(sorted(self.digests.items())).encode()).hexdigest()[:12],
            num_unscored=len(self.unscored),
            unscored=dict(sorted(self.unscored.items())[:20]),
            image_iou=self.image_iou,
            confusion=confusion,
        )


THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 17))
"""Constant background thresholds at which class activation maps are cut; the best is scored."""

SCORED = pa.schema(
    [
        pa.field("image_id", pa.string()),
        pa.field("split", pa.string()),
        *(field for stage in (ScoreCams, ScoreMasks) for field in stage.writes),
    ]
)
"""Columns of a scored row."""


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
        The folder with `results.json` and `confusion.parquet`, and the scores, CAMs first.

    Raises:
        ValueError: if no row has a true mask.
    """
    config = context.config
    rows = _rows_with_truth(context)
    if rows.num_rows == 0:
        raise ValueError("no row has a true mask (mask_uri is null everywhere); give the importer the masks' folder")
    plan = evaluate_plan(context, masks=masks, seeds=seeds)
    rows = _held(rows, plan)
    names = [config.refinement.method, config.walk.num_steps > 0, config.segmentation.method]
    provenance = plan.provenance() | {
        "rows": set_digest(rows, plan.row_columns()),
        "named": [*names, config.evaluation.splits],  # scores are named by methods, and the threshold is of a split
    }
    if segments is not None:
        of_segments = evaluate_plan(context, masks=segments, seeds=None)
        segmented = _held(_rows_with_truth(context), of_segments)
        provenance["segments"] = [of_segments.digest, set_digest(segmented, of_segments.row_columns())]
    evaluated = digest(provenance)
    folder = storage.join(config.out, "evaluate", evaluated)
    open_folder(folder, provenance)
    uri = storage.join(folder, RESULTS_FILE)
    if read_summary(folder) is None:
        scores = _score_run(context, plan, rows)
        if segments is not None:
            scores += score_segments(context, segments)
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


def evaluate_plan(context: Context, *, masks: Artifact, seeds: Artifact | None) -> Plan:
    """LoadSeeds → LoadMasks → ScoreCams → ScoreMasks; without seeds the masks alone."""
    num_classes = len(context.classes) + 1
    cams = ScoreCams(num_classes=num_classes, thresholds=THRESHOLDS, max_side=context.config.images.max_side)
    load, score = LoadMasks(masks=masks), ScoreMasks(num_classes=num_classes)
    return Plan(
        name="evaluate",
        stages=(load, score) if seeds is None else (LoadSeeds(seeds=seeds), load, cams, score),
        schema=pa.schema([field for field in SCORED if seeds is not None or field.name not in ScoreCams.writes.names]),
        classes=context.classes,
    )


def _held(rows: pa.Table, plan: Plan) -> pa.Table:
    """The rows with the shards of their masks and maps, those that have either."""
    held = []
    for stage in plan.stages:
        if isinstance(stage, LoadMasks | LoadSeeds):
            outputs = stage.masks if isinstance(stage, LoadMasks) else stage.seeds
            rows = locate(rows, outputs, prefix=stage.prefix)
            held.append(stage.prefix + SHARD_URI)
    return rows.filter(reduce(pc.or_, (pc.is_valid(rows[name]) for name in held)))


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
    plan = evaluate_plan(context, masks=segments, seeds=None)
    method = context.config.segmentation.method
    plain = ("segmenter", "none")
    names = {"confusion": plain} if method == "none" else {"walk_confusion": plain, "confusion": ("segmenter", method)}
    rows = _held(_rows_with_truth(context), plan)
    return _mask_scores(context, _tally(context, plan, rows, dict.fromkeys(names, 1)), names)


def has_truth(context: Context) -> bool:
    """True where a row that is to be scored has a true mask."""
    return bool(_rows_with_truth(context).num_rows)


def _rows_with_truth(context: Context) -> pa.Table:
    rows = context.rows(context.config.evaluation.splits)
    return rows.filter(pc.is_valid(rows["mask_uri"]))


def _score_run(context: Context, plan: Plan, rows: pa.Table) -> list[Score]:
    """Scores of the maps, of the walked masks and of the refined ones."""
    method, note = context.config.refinement.method, "" if context.config.walk.num_steps else ", no walk"
    plain = ("walk", f"none{note}")
    names = {"confusion": plain} if method == "none" else {"walk_confusion": plain, "confusion": (method, method)}
    tallies = _tally(context, plan, rows, {"cam_confusions": len(THRESHOLDS), **dict.fromkeys(names, 1)})
    return _cam_scores(context, tallies["cam_confusions"]) + _mask_scores(context, tallies, names)


def _cam_scores(context: Context, tallies: dict[str, _Tally]) -> list[Score]:
    """Scores at the threshold that is the best on the first split, in the order in which the config names them."""
    scored = [split for split in context.config.evaluation.splits or sorted(tallies) if split in tallies]
    scored = [split for split in scored if tallies[split].digests]
    if not scored:
        return []
    best = int(np.argmax([mean_iou(confusion) for confusion in tallies[scored[0]].confusion]))
    how = f"background {THRESHOLDS[best]:g}, best on {scored[0]}"
    return [
        tally.score(stage="cam", split=split, post_processing=how, classes=context.classes, index=best)
        for split, tally in tallies.items()
    ]


def _mask_scores(
    context: Context, tallies: dict[str, dict[str, _Tally]], names: dict[str, tuple[str, str]]
) -> list[Score]:
    return [
        tally.score(stage=name, split=split, post_processing=post_processing, classes=context.classes)
        for column, (name, post_processing) in names.items()
        for split, tally in tallies[column].items()
    ]


def _tally(context: Context, plan: Plan, rows: pa.Table, columns: dict[str, int]) -> dict[str, dict[str, _Tally]]:
    """Adds up, per column of matrices (its number of matrices given) and split, over the rows of an evaluation."""
    num_classes = len(context.classes) + 1
    splits = sorted({split or "all" for split in rows["split"].to_pylist()})
    tallies = {
        column: {split: _Tally(np.zeros((count, num_classes, num_classes), np.int64)) for split in splits}
        for column, count in columns.items()
    }
    if rows.num_rows:
        for batch in context.compute(plan, rows):
            for row in batch.to_pylist():
                for column in columns:
                    tallies[column][row["split"] or "all"].add(row, column)
    return tallies
