"""Scores class activation maps, walked masks and refined masks against true masks, split by split."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

import raypipe
from raypipe import storage
from raypipe.ops.metrics import iou, mean_iou
from raypipe.pipelines.context import Context, with_shards
from raypipe.results import Score, class_csv
from raypipe.stages.load_shards import LoadMasks, LoadSeeds
from raypipe.stages.score_masks import ScoreCams, ScoreMasks, unpack
from raypipe.streams import plan as graph
from raypipe.streams.records import Record, open_folder, read_summary, write_summary

RESULTS_FILE = "results.json"
TABLE_FILE = "classes.csv"
CONFUSION_FILE = "confusion.parquet"
THRESHOLDS = tuple(round(0.05 * step, 2) for step in range(1, 17))
"""Constant background scores of which class activation maps take the best."""


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
        matrices = unpack(row[column], num_classes=self.confusion.shape[-1])
        self.confusion += matrices
        self.digests[row["image_id"]] = row["truth_digest"]
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


def run_evaluate(context: Context, *, seeds: str, masks: str, segments: str | None = None) -> tuple[str, list[Score]]:
    """Scores folders on every split that has true masks, unless that is done already.

    Args:
        context: config and manifest.
        seeds: URI of class activation maps.
        masks: URI of pseudo-masks.
        segments: URI of the segmentation network's masks; None where there are none.

    Returns:
        The folder with `results.json` and `confusion.parquet`, and the scores, CAMs first.

    Raises:
        ValueError: if no row has a true mask.
    """
    config = context.config
    rows = _rows_with_truth(context)
    if rows.num_rows == 0:
        raise ValueError("no row has a true mask (mask_uri is null everywhere); give the importer the masks' folder")
    record = Record(
        stage="evaluate",
        config=config.evaluation.model_dump(mode="json"),
        inputs={
            "seeds": seeds,
            "masks": masks,
            "segments": segments or "none",
            "manifest": context.inputs_digest(rows),
        },
    )
    folder = open_folder(record, config.out)
    uri = storage.join(folder, RESULTS_FILE)
    if read_summary(folder) is None:
        method, note = config.refinement.method, "" if config.walk.num_steps else ", no walk"
        scores = _score_cams(context, rows, seeds)
        scores += _score_masks(context, rows, masks, stage="walk", method=method, refined=method, note=note)
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
    return folder, [Score(**score) for score in json.loads(storage.read_bytes(uri))["scores"]]


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


def score_segments(context: Context, segments: str) -> list[Score]:
    """Scores of the segmentation network's masks alone."""
    method = context.config.segmentation.method
    rows = _rows_with_truth(context)
    return _score_masks(context, rows, segments, stage="segmenter", method=method, refined="segmenter")


def has_truth(context: Context) -> bool:
    """True where a row that is to be scored has a true mask."""
    return bool(_rows_with_truth(context).num_rows)


def _rows_with_truth(context: Context) -> pa.Table:
    rows = context.rows(context.config.evaluation.splits)
    return rows.filter(pc.is_valid(rows["mask_uri"]))


def _score_cams(context: Context, rows: pa.Table, seeds: str) -> list[Score]:
    args = {
        "num_classes": len(context.classes) + 1,
        "thresholds": THRESHOLDS,
        "max_side": context.config.images.max_side,
    }
    steps = [graph.Step(stage=LoadSeeds), graph.Step(stage=ScoreCams, args=args)]
    tallies = _tally(context, rows, seeds, steps, {"confusions": len(THRESHOLDS)})["confusions"]
    if not tallies:
        return []
    chosen_on = next(split for split in (context.config.evaluation.splits or tallies) if split in tallies)
    best = int(np.argmax([mean_iou(confusion) for confusion in tallies[chosen_on].confusion]))
    how = f"background {THRESHOLDS[best]:g}, best on {chosen_on}"
    return [
        tally.score(stage="cam", split=split, post_processing=how, classes=context.classes, index=best)
        for split, tally in tallies.items()
    ]


def _score_masks(
    context: Context, rows: pa.Table, folder: str, *, stage: str, method: str, refined: str, note: str = ""
) -> list[Score]:
    """Scores of masks before (`stage`) and after (`refined`) their refinement by `method`, if there was one."""
    steps = [
        graph.Step(stage=LoadMasks),
        graph.Step(stage=ScoreMasks, args={"num_classes": len(context.classes) + 1}),
    ]
    plain = (stage, f"none{note}")
    names = {"confusion": plain} if method == "none" else {"walk_confusion": plain, "confusion": (refined, method)}
    tallies = _tally(context, rows, folder, steps, dict.fromkeys(names, 1))
    return [
        tally.score(stage=name, split=split, post_processing=post_processing, classes=context.classes)
        for column, (name, post_processing) in names.items()
        for split, tally in tallies[column].items()
    ]


def _tally(
    context: Context, rows: pa.Table, folder: str, steps: list[graph.Step], columns: dict[str, int]
) -> dict[str, dict[str, _Tally]]:
    """Adds up, per column of matrices (its number of matrices given) and split, over the rows that a folder holds."""
    held, _ = with_shards(rows, folder)
    num_classes = len(context.classes) + 1
    splits = sorted({split or "all" for split in held["split"].to_pylist()})
    tallies = {
        column: {split: _Tally(np.zeros((count, num_classes, num_classes), np.int64)) for split in splits}
        for column, count in columns.items()
    }
    if held.num_rows == 0:
        return tallies
    graph.check(held.column_names, steps)
    dataset = graph.apply(graph.source(held, rows_per_block=16), steps, autoscaling=context.config.cluster.autoscaling)
    batches = cast(Iterator[pa.Table], dataset.iter_batches(batch_size=None, batch_format="pyarrow"))
    for batch in batches:
        for row in batch.to_pylist():
            for column in columns:
                tallies[column][row["split"] or "all"].add(row, column)
    return tallies
