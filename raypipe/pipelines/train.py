"""Trains the networks: rows and crops by Ray Data, steps by Ray Train."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
from numpy.typing import NDArray
from ray.train import ScalingConfig

from raypipe import storage
from raypipe.config import Training
from raypipe.data.checkpoints import WEIGHTS_FILE, Task, has_checkpoint, read_metadata
from raypipe.data.manifest import UnknownLabel, class_ids_of
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context
from raypipe.pipelines.saliency_maps import with_saliency
from raypipe.schema import SEEDS
from raypipe.stages.crops import LoadAffinityCrops, LoadClassifierCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops
from raypipe.streams import plan as graph
from raypipe.streams.records import Record, open_folder
from raypipe.streams.sink import SHARDS
from raypipe.training.loop import Feed, LoopSettings
from raypipe.training.order import repeat_factors, worker_draws
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.tasks import AffinityTask, ClassifierTask, TrainingTask
from raypipe.training.trainer import CHECKPOINT, train
from raypipe.training.validation import Validation

_ROWS_PER_STREAM = 200_000
"""Epochs are loaded by one stream together up to here: a stream costs a second to start."""


def train_classifier(context: Context) -> tuple[str, str]:
    """Trains the classifier, unless it is there already.

    Args:
        context: config and manifest.

    Returns:
        The checkpoint's URI and digest.
    """
    config = context.config
    rows = labelled_rows(context, context.rows(config.splits.train))
    training = config.training("classifier")
    task = classifier_task(context)
    stage = LoadClassifierCrops
    if config.classifier.saliency != "none":
        rows, stage = with_saliency(context, rows), LoadSaliencyCrops
    step = graph.Step(
        stage=stage,
        args={
            "classes": context.classes,
            "long_side": config.classifier.long_side,
            **crop_args(context, training, task),
        },
    )
    threshold = training.repeat_threshold
    factors = None if threshold is None else repeat_factors(rows["labels"].to_pylist(), threshold=threshold)
    return run_training(context, task, training, rows, step, factors=factors)


def train_affinity(context: Context, *, seeds: str, seeds_digest: str, classifier: str) -> tuple[str, str]:
    """Trains the AffinityNet on the trimaps of a seeds folder, unless it is there already.

    Args:
        context: config and manifest.
        seeds: the folder's URI, and its digest.
        seeds_digest: see `seeds`.
        classifier: URI of the checkpoint that made the seeds; the AffinityNet starts from it where
            `affinity.start=classifier`.

    Returns:
        The checkpoint's URI and digest.
    """
    config = context.config
    manifest = context.rows(config.splits.train).select(["image_id", "image_uri"])
    trimaps = read_shards(storage.join(seeds, SHARDS), columns=["image_id", "trimap"], schema=SEEDS)
    trimaps = trimaps.filter(pc.is_valid(trimaps["trimap"]))
    rows = manifest.join(trimaps, keys="image_id", join_type="inner").sort_by("image_id")
    if rows.num_rows == 0:
        raise ValueError(f"{seeds} has no trimaps of splits.train={config.splits.train}: run `raypipe seeds` for them")
    training = config.training("affinity")
    task = affinity_task(context, classifier=classifier)
    step = graph.Step(stage=LoadAffinityCrops, args=crop_args(context, training, task))
    return run_training(context, task, training, rows, step, seeds=seeds_digest)


def classifier_task(context: Context) -> ClassifierTask:
    """The classifier that the config asks for."""
    classifier = context.config.classifier
    network: dict[str, Any] = {
        **context.config.network.model_dump(),
        "num_classes": len(context.classes),
        "output_stride": classifier.output_stride,
    }
    if classifier.saliency == "none":
        return ClassifierTask(**network)
    return SaliencyTask(**network, method=classifier.saliency, **classifier.saliency_loss.model_dump())


def affinity_task(context: Context, *, classifier: str) -> AffinityTask:
    """The AffinityNet that the config asks for; it may start from a classifier's checkpoint."""
    network, affinity = context.config.network, context.config.affinity
    return AffinityTask(
        backbone=network.backbone,
        weights=storage.join(classifier, WEIGHTS_FILE) if affinity.start == "classifier" else network.weights,
        preprocessing=network.preprocessing,
        radius=affinity.radius,
        freeze_backbone=affinity.freeze_backbone,
    )


def run_training(
    context: Context,
    task: TrainingTask,
    training: Training,
    rows: pa.Table,
    step: graph.Step,
    *,
    factors: NDArray[np.float64] | None = None,
    validation: Validation | None = None,
    manifest_columns: Sequence[str] | None = None,
    **inputs: str,
) -> tuple[str, str]:
    """Trains a network, unless it is there already.

    Args:
        context: config and manifest.
        task: network and loss.
        training: the task's, of `RunConfig.training`.
        rows: the images to learn from.
        step: the stage that makes crops of them.
        factors: how often each is drawn, see `make_feed`.
        validation: see `LoopSettings`.
        manifest_columns: columns of the rows that are the manifest's; None where all are.
        inputs: digests of what else the rows are made of.

    Returns:
        The checkpoint's URI and digest.
    """
    cluster = context.config.cluster
    record = Record(
        stage=task.name,
        config={"training": training.model_dump(mode="json"), "images": context.config.images.model_dump()},
        inputs={"manifest": context.inputs_digest(rows.select(manifest_columns or rows.column_names)), **inputs},
    )
    folder = open_folder(record, context.config.out)
    uri = storage.join(folder, CHECKPOINT)
    if not has_checkpoint(uri):
        step = graph.Step(stage=step.stage, args=step.args, num_actors=cluster.loader_actors)
        graph.check([*rows.column_names, "epoch", "repeat"], [step])
        image_ids = rows["image_id"].to_pylist()
        feed = make_feed(ray.put(rows), image_ids, step, training, factors=factors, autoscaling=cluster.autoscaling)
        settings = LoopSettings(
            task=task, training=training, feed=feed, num_images=rows.num_rows, validation=validation
        )
        threads = cluster.threads_per_actor or max(1, (os.cpu_count() or 1) // cluster.train_workers)
        scaling = ScalingConfig(
            num_workers=cluster.train_workers,
            use_gpu=cluster.gpus_per_train_worker > 0,
            resources_per_worker={"CPU": threads, "GPU": cluster.gpus_per_train_worker},
        )
        train(settings, folder=folder, classes=context.classes, scaling=scaling)
    return uri, read_metadata(uri, task=task.name)["digest"]


def make_feed(
    rows: Any,
    image_ids: list[str],
    step: graph.Step,
    training: Training,
    *,
    factors: NDArray[np.float64] | None = None,
    autoscaling: bool = False,
) -> Feed:
    """The function that a training worker calls for its batches.

    Args:
        rows: reference to the table in Ray's object store.
        image_ids: the table's.
        step: the stage that makes crops.
        training: seed, epochs, batch size.
        factors: how often each image is drawn, relative to the others; None draws each once an epoch.
        autoscaling: see `graph.apply`.
    """

    def feed(first_epoch: int, rank: int, world_size: int) -> Iterator[pa.Table]:
        table: pa.Table = ray.get(rows)
        epochs, batch_size = training.section.epochs, training.section.batch_size
        options = ray.data.DataContext.get_current()
        options.execution_options.preserve_order = True
        options.enable_progress_bars = False  # the training shows its own
        epochs_per_stream = max(1, _ROWS_PER_STREAM * world_size // len(image_ids))
        for start in range(first_epoch, epochs, epochs_per_stream):
            parts = []
            for epoch in range(start, min(start + epochs_per_stream, epochs)):
                indices, repeats = worker_draws(
                    image_ids,
                    seed=training.seed,
                    epoch=epoch,
                    batch_size=batch_size,
                    rank=rank,
                    world_size=world_size,
                    factors=factors,
                )
                part = table.take(pa.array(indices)).append_column("repeat", pa.array(repeats, pa.int32()))
                parts.append(part.append_column("epoch", pa.repeat(pa.scalar(epoch, pa.int32()), len(indices))))
            num_rows = len(range(rank, batch_size, world_size))
            dataset = graph.apply(
                graph.source(pa.concat_tables(parts), rows_per_block=num_rows), [step], autoscaling=autoscaling
            )
            yield from dataset.iter_batches(batch_size=num_rows, batch_format="pyarrow", prefetch_batches=4)

    return feed


def crop_args(context: Context, training: Training, task: TrainingTask) -> dict[str, Any]:
    """Arguments that all stages of crops take."""
    return {
        "crop_size": training.section.crop_size,
        "fill": tuple(int(value) for value in task.build().preprocessing.fill),
        "jitter": training.jitter,
        "seed": training.seed,
        "max_side": context.config.images.max_side,
    }


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


def given_checkpoint(context: Context, *, task: Task) -> tuple[str, str] | None:
    """URI and digest of the checkpoint that the config names, None where it names none.

    Raises:
        ValueError: if it was trained for other classes.
    """
    uri: str | None = getattr(context.config.checkpoints, task)
    if uri is None:
        return None
    metadata = read_metadata(uri, task=task)
    if tuple(metadata["classes"]) != context.classes:
        raise ValueError(
            f"{uri} was trained for classes {metadata['classes']}, the manifest has {list(context.classes)}; "
            "train again, or give the manifest the same classes in the same order"
        )
    return uri, metadata["digest"]
