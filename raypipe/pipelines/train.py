"""Trains the networks: rows and crops by Ray Data, steps by Ray Train."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest, identity
from raypipe.config import Training
from raypipe.data.checkpoints import CHECKPOINT, Task, has_checkpoint, read_metadata
from raypipe.data.manifest import UnknownLabel, class_ids_of
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import held
from raypipe.pipelines.saliency_maps import lacks_saliency, run_saliency, with_saliency
from raypipe.schema import SEEDS, SHARD_DIGEST, SHARD_URI
from raypipe.stages.base import columns_after
from raypipe.stages.crops import LoadAffinityCrops, LoadClassifierCrops, LoadCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops
from raypipe.streams.execute import execute
from raypipe.streams.plan import Pool
from raypipe.streams.records import open_folder, set_digest
from raypipe.streams.resources import PoolPlan
from raypipe.streams.sink import SHARDS
from raypipe.streams.trainings import TrainingPlan, plan_training
from raypipe.streams.waiting import watch_start
from raypipe.training.order import repeat_factors, worker_draws
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.tasks import AffinityTask, ClassifierTask, TrainingTask
from raypipe.training.validation import Validation

if TYPE_CHECKING:
    from raypipe.training.loop import Feed

_ROWS_PER_STREAM = 200_000
"""Epochs are loaded by one stream together up to here: a stream costs a second to start."""

_DRAWN = ("epoch", "repeat")
"""Columns that the order of the epochs adds to the rows."""


@dataclass(frozen=True, kw_only=True)
class NetworkPlan:
    """What a network is trained of; the number of workers and the hardware's precision aren't part of it."""

    task: TrainingTask
    training: Training
    crops: LoadCrops
    """Makes crops of the rows."""
    rows: pa.Table
    """The images to learn from."""
    classes: tuple[str, ...]
    factors: NDArray[np.float64] | None = None
    """How often each row is drawn, relative to the others; None draws each once an epoch."""
    validation: Validation | None = None

    def provenance(self) -> dict[str, Any]:
        """All that the network depends on."""
        read = [name for name in self.crops.reads if name not in _DRAWN and not name.endswith(SHARD_URI)]
        # What an earlier stream has made of a row is known by its digest, not by its bytes.
        columns = [name for name in read if name in self.rows.column_names and name not in SEEDS.names[1:]]
        more = [name for name in (SHARD_DIGEST, "labels") if name in self.rows.column_names]
        return {
            "task": identity(self.task),
            "training": identity(self.training),
            "crops": identity(self.crops),
            "classes": self.classes,
            "rows": set_digest(self.rows, [*columns, *more]),
            "validation": identity(self.validation),
        }


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
    rows = labelled_rows(context, context.rows(config.splits.train))
    training = config.training("classifier")
    task = classifier_task(context)
    options: dict[str, Any] = {
        "classes": context.classes,
        "long_side": config.classifier.long_side,
        **crop_options(context, training, task),
    }
    crops = LoadClassifierCrops(**options)
    if config.classifier.saliency != "none":
        rows = with_saliency(context, rows, predicted=maps)
        crops = LoadSaliencyCrops(maps=maps, **options)
    threshold = config.repeat_threshold
    factors = None if threshold is None else repeat_factors(rows["labels"].to_pylist(), threshold=threshold)
    return NetworkPlan(task=task, training=training, crops=crops, rows=rows, classes=context.classes, factors=factors)


def train_affinity(context: Context, *, seeds: Artifact, classifier: Artifact | None) -> Artifact:
    """Trains the AffinityNet, unless it is there already; arguments as of `affinity_plan`."""
    return run_training(context, affinity_plan(context, seeds=seeds, classifier=classifier))


def affinity_plan(context: Context, *, seeds: Artifact, classifier: Artifact | None) -> NetworkPlan:
    """What the AffinityNet is trained of.

    Args:
        context: config and manifest.
        seeds: folder whose trimaps it learns from.
        classifier: checkpoint that it starts from where `affinity.start=classifier`.
    """
    config = context.config
    training = config.training("affinity")
    task = affinity_task(context, classifier=classifier)
    crops = LoadAffinityCrops(seeds=seeds, **crop_options(context, training, task))
    rows = held(context.rows(config.splits.train).select(["image_id", "image_uri"]), seeds)
    trimaps = read_shards(storage.join(seeds.uri, SHARDS), columns=["image_id", "trimap"], schema=SEEDS)
    trimaps = trimaps.filter(pc.is_valid(trimaps["trimap"]))
    rows = rows.join(trimaps, keys="image_id", join_type="inner").sort_by("image_id")
    if rows.num_rows == 0:
        raise ValueError(f"{seeds.uri} has no trimaps of splits.train={config.splits.train}: run `raypipe seeds`")
    return NetworkPlan(task=task, training=training, crops=crops, rows=rows, classes=context.classes)


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


def affinity_task(context: Context, *, classifier: Artifact | None) -> AffinityTask:
    """The AffinityNet that the config asks for; it may start from a classifier's checkpoint."""
    training = context.config.affinity
    return AffinityTask(
        **network_options(context, start=training.start, classifier=classifier),
        radius=training.radius,
        freeze_backbone=training.freeze_backbone,
    )


def network_options(
    context: Context, *, start: str = "pretrained", classifier: Artifact | None = None
) -> dict[str, Any]:
    """Backbone, initial weights and preprocessing of a network to train.

    Raises:
        ValueError: if it starts from a classifier and there is none.
    """
    network = context.config.network
    if start == "classifier" and classifier is None:
        raise ValueError("start=classifier needs the classifier's checkpoint")
    return {
        "backbone": network.backbone,
        "weights": classifier if start == "classifier" else network.weights,
        "preprocessing": network.preprocessing,
    }


def run_training(context: Context, plan: NetworkPlan) -> Artifact:
    """Trains a network, unless it is there already.

    Args:
        context: config and manifest.
        plan: what it is trained of.

    Returns:
        The checkpoint.
    """
    if trained := find_trained(context, plan):
        return trained
    folder = _folder(context, plan)
    open_folder(folder, plan.provenance())
    _train(context, plan, folder)
    uri = storage.join(folder, CHECKPOINT)
    return Artifact(uri, read_metadata(uri, task=plan.task.name)["digest"])


def find_trained(context: Context, plan: NetworkPlan) -> Artifact | None:
    """The checkpoint of a plan that was trained already; None where it wasn't."""
    uri = storage.join(_folder(context, plan), CHECKPOINT)
    return Artifact(uri, read_metadata(uri, task=plan.task.name)["digest"]) if has_checkpoint(uri) else None


def _folder(context: Context, plan: NetworkPlan) -> str:
    return storage.join(context.config.out, plan.task.name, digest(plan.provenance()))


def _train(context: Context, plan: NetworkPlan, folder: str) -> None:
    import ray  # takes seconds, as the next ones
    from ray.train import ScalingConfig

    from raypipe.training.loop import LoopSettings
    from raypipe.training.trainer import train

    columns_after([*plan.rows.column_names, *_DRAWN], [plan.crops])  # before anything starts
    resources = plan_training(
        plan.task.name,
        plan.training.section.batch_size,
        context.machine,
        context.config.cluster,
        validates=plan.validation is not None,
    )
    image_ids = plan.rows["image_id"].to_pylist()
    feed = make_feed(
        ray.put(plan.rows), image_ids, plan.crops, plan.training, loader_pool(resources), factors=plan.factors
    )
    settings = LoopSettings(
        task=plan.task,
        training=plan.training,
        feed=feed,
        num_images=plan.rows.num_rows,
        threads=resources.threads,
        validation=plan.validation,
    )
    scaling = ScalingConfig(
        num_workers=resources.workers,
        use_gpu=resources.gpus > 0,
        resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
    )
    needs = (
        f"{resources.workers} workers, each of {resources.cpus:g} CPUs and {resources.gpus:g} GPUs, and their loaders"
    )
    with watch_start(f"training of the {plan.task.name}", needs, timeout=context.config.cluster.start_timeout):
        train(settings, folder=folder, classes=plan.classes, scaling=scaling)


def loader_pool(resources: TrainingPlan) -> PoolPlan:
    """The processes that make crops for one worker."""
    return PoolPlan(
        name="loader",
        kind="finish",
        min_actors=1,
        max_actors=resources.loaders,
        cpus=resources.loader_cpus,
        gpus=0,
        threads=1,
        memory=None,
    )


def make_feed(
    rows: Any,
    image_ids: list[str],
    crops: LoadCrops,
    training: Training,
    loaders: PoolPlan,
    *,
    factors: NDArray[np.float64] | None = None,
) -> "Feed":
    """The function that a training worker calls for its batches.

    Args:
        rows: reference to the table in Ray's object store.
        image_ids: the table's.
        crops: the stage that makes crops.
        training: seed, epochs, batch size.
        loaders: resources of the processes that make crops for one worker.
        factors: how often each image is drawn, relative to the others; None draws each once an epoch.
    """
    pool = Pool("finish", (crops,), ("image_id", *crops.writes.names))

    def feed(first_epoch: int, rank: int, world_size: int) -> Iterator[pa.Table]:
        import ray

        table: pa.Table = ray.get(rows)
        epochs_per_stream = max(1, _ROWS_PER_STREAM * world_size // len(image_ids))
        for start in range(first_epoch, training.section.epochs, epochs_per_stream):
            parts = []
            for epoch in range(start, min(start + epochs_per_stream, training.section.epochs)):
                indices, repeats = worker_draws(
                    image_ids,
                    seed=training.seed,
                    epoch=epoch,
                    batch_size=training.section.batch_size,
                    rank=rank,
                    world_size=world_size,
                    factors=factors,
                )
                part = table.take(pa.array(indices)).append_column("repeat", pa.array(repeats, pa.int32()))
                parts.append(part.append_column("epoch", pa.repeat(pa.scalar(epoch, pa.int32()), len(indices))))
            num_rows = len(range(rank, training.section.batch_size, world_size))
            # A block is this worker's part of a batch.
            yield from execute(
                pa.concat_tables(parts), [(pool, loaders)], rows_per_block=num_rows, in_order=True, progress=False
            )

    return feed


def crop_options(context: Context, training: Training, task: TrainingTask) -> dict[str, Any]:
    """Options that all stages of crops take."""
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


def given_checkpoint(context: Context, *, task: Task) -> Artifact | None:
    """The checkpoint that the config names, None where it names none.

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
    return Artifact(uri, metadata["digest"])
