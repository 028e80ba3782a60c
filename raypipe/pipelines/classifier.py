"""The classifier: what it is trained of, with saliency's help where the config asks for it."""

from typing import Any

import pyarrow as pa

from raypipe.artifacts import Artifact
from raypipe.data.manifest import UnknownLabel, class_ids_of
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.pipelines.saliency_maps import lacks_saliency, run_saliency, with_saliency
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops
from raypipe.streams.collect import collect
from raypipe.training.order import repeat_factors
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.tasks import ClassifierTask

TRAINED_COLUMNS = (*MANIFEST_COLUMNS, "saliency_uri")


def train_classifier(context: Context) -> Artifact:
    """Trains the classifier, unless it is there already."""
    maps, _ = run_saliency(context) if lacks_saliency(context) else (None, None)
    return run_training(context, classifier_plan(context, maps=maps))


def classifier_plan(context: Context, *, maps: Artifact | None) -> NetworkPlan:
    """What the classifier is trained of.

    Args:
        context: config and manifest.
        maps: folder of predicted saliency maps; None where none are missing.
    """
    config = context.config
    rows = labelled_rows(context, collect(context.rows(config.splits.train, columns=TRAINED_COLUMNS)))
    training = config.training("classifier")
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
    return NetworkPlan(task=task, training=training, crops=crops, rows=rows, classes=context.classes, factors=factors)


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


def labelled_rows(context: Context, rows: pa.Table) -> pa.Table:
    """Rows whose labels can be learned; the others are named by the streams' quarantine."""

    def usable(labels: list[str] | None) -> bool:
        if labels is None:
            return False
        try:
            class_ids_of(labels, context.classes)
        except UnknownLabel:
            return False
        return True

    usable_rows = rows.filter(pa.array([usable(labels) for labels in rows["labels"].to_pylist()]))
    if usable_rows.num_rows == 0:
        raise ValueError(
            f"none of the {rows.num_rows} rows of splits.train={context.config.splits.train} has usable labels; "
            f"labels must be lists of {', '.join(context.classes[:5])}…"
        )
    return usable_rows
