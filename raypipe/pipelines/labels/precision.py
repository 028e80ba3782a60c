"""Asks a trained classifier for labels: what it knows of each class is kept in its checkpoint's folder.

Which images are asked is settled before the training. They go through the network in a stream of their own.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.ops.average_precision import average_precision, chance_precision
from raypipe.ops.cross_validation import cross_validated_scores
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels.knowledge import read_label_precision, say, write_label_precision
from raypipe.pipelines.networks import NetworkPlan
from raypipe.pipelines.steps import decode_images, fetch_images, pixels_per_pass
from raypipe.results import ClassPrecision, LabelPrecision
from raypipe.screen.step import is_there
from raypipe.stages.score_labels import OnWholeImages, PoolFeatures, ScoreLabels
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.collect import draw_rows, outputs_of, with_ids
from raypipe.streams.plan import Plan
from raypipe.training.held_out import Asked, folds_of, read_asked
from raypipe.training.staging import stage_weights
from raypipe.training.tasks import ClassifierTask
from raypipe.uri import parent

logger = logging.getLogger(__name__)


def measure_labels(context: Context, classifier: Artifact, trained: NetworkPlan) -> LabelPrecision | None:
    """What a classifier knows of its classes, measured unless that is done already.

    Args:
        context: config and manifest.
        classifier: the checkpoint.
        trained: its training.

    Returns:
        None where the checkpoint doesn't say which images it hasn't learned from.
    """
    if known := read_label_precision(classifier):
        is_there("labels")
        _say(classifier, known, trained, is_new=False)
        return known
    asked = read_asked(classifier.uri)
    if asked is None:
        return None
    ids = asked.held_out + asked.learned
    rows = draw_rows(with_ids(context.rows(context.config.splits.train), ids), len(ids))
    assert isinstance(trained.task, ClassifierTask)
    task = trained.task
    if isinstance(task.weights, str):
        task = replace(
            task, staged_weights=stage_weights(task.weights, out=context.config.out, preprocessing=task.preprocessing)
        )
    plan = labels_plan(context, classifier, task, cross_validates=not asked.held_out)
    try:
        context.run(plan, rows, budget=Budget(max_fraction=1))
    except BudgetExceeded as error:  # where no image can be read, the streams to come say so
        logger.warning("labels: %s", error)
        return None
    found = outputs_of(plan.artifact(context.config.out), rows, plan.schema)
    measured = label_precision(found, asked, classes=context.classes)
    write_label_precision(classifier, measured)
    _say(classifier, measured, trained, is_new=True)
    return measured


def _say(classifier: Artifact, known: LabelPrecision, trained: NetworkPlan, *, is_new: bool) -> None:
    """Shows what was measured now; of what was known before the warnings alone, which are no less true than then."""
    from raypipe.training.trainer import read_metrics  # TensorBoard takes seconds

    epochs = read_metrics(parent(classifier.uri))  # a set may have grown since: it has learned from fewer images
    num_images = epochs[-1]["num_images"] if epochs else trained.rows.num_rows
    for level, line in say(known, trained.training, num_images=num_images):
        logger.log(level if is_new or level == logging.WARNING else logging.DEBUG, "labels: %s", line)


def labels_plan(context: Context, classifier: Artifact, task: ClassifierTask, *, cross_validates: bool) -> Plan:
    """FetchImages → DecodeImages → ScoreLabels, and PoolFeatures for a cross-validation.

    Args:
        context: config and manifest.
        classifier: the checkpoint.
        task: what it was trained as.
        cross_validates: features are written, too.
    """
    config = context.config
    options: dict[str, Any] = {
        "output_stride": task.output_stride,
        "max_side": min(config.images.max_side, config.classifier.crop_size),
        "precision": config.precision,
        "pixels_per_pass": pixels_per_pass(config),
    }
    stages: list[OnWholeImages] = [ScoreLabels(classifier=classifier, **options)]
    if cross_validates:
        network = PoolFeatures(
            backbone=task.backbone,
            weights=task.weights or classifier,
            preprocessing=task.preprocessing,
            staged_weights=task.staged_weights,
            **options,
        )
        stages.append(network)
    fetch = fetch_images(context)
    fields = [fetch.writes.field("class_ids"), *(field for stage in stages for field in stage.writes)]
    return Plan(
        name="labels",
        stages=(fetch, decode_images(context, max_side=options["max_side"]), *stages),
        schema=pa.schema([pa.field("image_id", pa.string()), *fields]),
        classes=context.classes,
    )


def label_precision(found: pa.Table, asked: Asked, *, classes: Sequence[str]) -> LabelPrecision:
    """What the outputs of `labels_plan` say."""
    ids = found["image_id"].to_pylist()
    shown = np.zeros((len(ids), len(classes)), np.bool_)
    for row, class_ids in enumerate(found["class_ids"].to_pylist()):
        shown[row, [class_id - 1 for class_id in class_ids]] = True
    logits = _matrix(found["logits"], len(classes))
    has_learned = np.isin(ids, asked.learned)
    learned = _precisions(logits[has_learned], shown[has_learned])
    if asked.held_out:
        told = ~has_learned
        precisions = _precisions(logits[told], shown[told])
    else:
        told = has_learned
        scores = cross_validated_scores(_matrix(found["features"]), shown, folds_of(ids))
        precisions = np.minimum(_precisions(scores, shown), learned)
    number, positive = int(told.sum()), shown[told].sum(axis=0)
    return LabelPrecision(
        method="held out" if asked.held_out else "cross-validation",
        num_images=number,
        classes=tuple(
            ClassPrecision(
                name=name,
                num_positive=int(positive[index]),
                precision=_rounded(precisions[index]),
                chance=_rounded(chance_precision(int(positive[index]), number)),
                learned=_rounded(learned[index]),
            )
            for index, name in enumerate(classes)
        ),
    )


def _matrix(column: pa.ChunkedArray, width: int | None = None) -> NDArray[np.float64]:
    values = column.combine_chunks()
    return np.asarray(values.flatten(), np.float64).reshape(len(values), -1 if len(values) else width or 0)


def _precisions(scores: NDArray[np.float64], shown: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.array([average_precision(*each) for each in zip(scores.T, shown.T, strict=True)])


def _rounded(value: float) -> float | None:
    return None if np.isnan(value) else round(float(value), 4)
