"""The classifier: what it is trained of, with saliency's help where the config asks for it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe.artifacts import Artifact
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.labels.precision import measure_labels
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.pipelines.saliency_maps import find_saliency, lacks_saliency, run_saliency, with_saliency
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops
from raypipe.streams.collect import count
from raypipe.training.held_out import hold_out
from raypipe.training.order import repeat_factors
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.tasks import ClassifierTask

_COLUMNS = (*MANIFEST_COLUMNS, "saliency_uri")


def train_classifier(context: Context) -> Artifact:
    """Trains the classifier, and measures what it has learned, unless that is done already."""
    maps = run_saliency(context)[0] if context.trains and lacks_saliency(context) else find_saliency(context)
    plan = classifier_plan(context, maps=maps)
    trained = run_training(context, plan)
    measure_labels(context, trained, plan)
    return trained


def classifier_plan(context: Context, *, maps: Artifact | None) -> NetworkPlan:
    """What the classifier is trained of.

    Args:
        context: config and manifest.
        maps: folder of predicted saliency maps; None where none are missing.
    """
    config = context.config
    training = config.training("classifier")
    rows, asked = hold_out(learned_rows(context), classes=context.classes)
    task = classifier_task(context)
    options: dict[str, Any] = {
        "classes": context.classes,
        "long_side": config.classifier.long_side,
        **crop_options(context, training, task),
    }
    crops = LoadClassifierCrops(**options)
    if config.classifier.saliency != "none":
        rows = with_saliency(rows, predicted=maps)
        crops = LoadSaliencyCrops(maps=maps, **options)
    threshold = config.repeat_threshold
    factors = None if threshold is None else repeat_factors(rows["labels"].to_pylist(), threshold=threshold)
    return NetworkPlan(
        task=task, training=training, crops=crops, rows=rows, classes=context.classes, factors=factors, asked=asked
    )


def classifier_task(context: Context) -> ClassifierTask:
    """The classifier that the config asks for."""
    config = context.config
    network: dict[str, Any] = {
        **network_options(context),
        "num_classes": len(context.classes),
        "output_stride": config.classifier.output_stride,
    }
    if config.classifier.saliency == "none":
        return ClassifierTask(**network)
    options = config.classifier.saliency_loss
    return SaliencyTask(
        **network,
        method=config.classifier.saliency,
        eps_share=options.eps_share,
        ird_tau=options.ird_tau,
        stride=options.stride,
    )


def learned_rows(context: Context) -> pa.Table:
    """`classifier.max_images` of the images with usable labels, of which some may be held out.

    Raises:
        ValueError: if there are none.
    """
    config, classes = context.config, context.classes
    rows = context.rows(config.splits.train, columns=_COLUMNS)
    usable = rows.then(lambda table, _: labelled_rows(table, classes))
    drawn = draw_to_learn(usable, classes=classes, number=config.classifier.max_images, seed=config.seed)
    if drawn.num_rows == 0:
        raise ValueError(
            f"none of the {count(rows)} rows of splits.train={config.splits.train} has usable labels; "
            f"labels must be lists of {', '.join(classes[:5])}…"
        )
    return drawn


def labelled_rows(rows: pa.Table, classes: Sequence[str]) -> pa.Table:
    """Rows whose labels can be learned; the others are named by the streams' quarantine."""
    labels = rows["labels"].combine_chunks()
    known = pc.is_in(pc.list_flatten(labels), value_set=pa.array(classes, pa.string()))
    usable = np.asarray(pc.is_valid(labels)).copy()
    usable[pc.list_parent_indices(labels).filter(pc.invert(known)).to_numpy()] = False
    return rows.filter(pa.array(usable))
