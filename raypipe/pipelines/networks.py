"""Trains a network by its plan: what it learns from and how, and the folder that follows from that."""

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.artifacts import Artifact, digest, identity
from raypipe.cluster.health import sick_nodes, without_nodes
from raypipe.cluster.trainings import plan_training
from raypipe.cluster.waiting import watch_start
from raypipe.config import Training
from raypipe.data.checkpoints import CHECKPOINT, Task, has_checkpoint, read_metadata
from raypipe.networks.backbones import default_preprocessing
from raypipe.networks.preprocessing import PREPROCESSINGS
from raypipe.outputs.lease import Lease, check_epoch, hold
from raypipe.outputs.records import open_folder, set_digest
from raypipe.pipelines.context import Context
from raypipe.pipelines.feed import DRAWN, make_feed, make_validation_feed, processes, rows_to_feed
from raypipe.pipelines.in_use import Use, find_in_use, find_use, put_in_use
from raypipe.pipelines.last_run import find_last_run
from raypipe.schema import SHARD_DIGEST, SHARD_ROW, SHARD_URI
from raypipe.screen.step import is_there, step
from raypipe.stages.base import columns_after
from raypipe.stages.crops import LoadCrops
from raypipe.training.held_out import Asked, write_asked
from raypipe.training.staging import stage_weights
from raypipe.training.tasks import TrainingTask
from raypipe.training.validation import Validation

logger = logging.getLogger(__name__)


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
    validated_rows: pa.Table | None = None
    """Images with true masks whose scores choose the best epoch; None takes the last epoch."""
    asked: Asked | None = None
    """Images whose labels the network is asked for afterwards; None asks for none."""
    warning: str = ""
    """What is said of the rows when the training begins; a look at what a run would do doesn't say it."""

    def provenance(self) -> dict[str, Any]:
        """All that the network depends on."""
        # What an earlier stream has made of a row is known by its digest, not by where it lies.
        read = [name for name in self.crops.reads if name not in DRAWN and not name.endswith((SHARD_URI, SHARD_ROW))]
        columns = [name for name in read if name in self.rows.column_names]
        validated = self.validated_rows
        more = [name for name in (SHARD_DIGEST, "labels") if name in self.rows.column_names]
        return {
            "task": identity(self.task),
            "training": identity(self.training),
            "crops": identity(self.crops),
            "classes": self.classes,
            "rows": set_digest(self.rows, [*columns, *more]),
            "validated_rows": None if validated is None else set_digest(validated, validated.column_names),
        }

    @property
    def options(self) -> str:
        """Digest of all that the network depends on but rows and classes."""
        of_classes = {"classes": None, "num_classes": None}
        task, crops = (identity(each) | of_classes for each in (self.task, self.crops))
        return digest({"task": task, "training": identity(self.training), "crops": crops})


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
        # Resolved, as it is a part of what the training depends on.
        "preprocessing": PREPROCESSINGS[network.preprocessing]
        if network.preprocessing
        else default_preprocessing(network.backbone),
    }


def run_training(context: Context, plan: NetworkPlan) -> Artifact:
    """Trains a network, unless it is there already, or one with the same options is in use.

    Args:
        context: config and manifest; its `retrain` says whether a network in use is renewed.
        plan: what it is trained of.

    Returns:
        The checkpoint.

    Raises:
        OtherClasses: if networks in use were trained for other classes.
        FolderInUse: if another run trains the network.
        ValueError: if it isn't there, and the context says that nothing is trained.
    """
    if context.retrain != "all" and (used := _in_use(context, plan)):
        is_there(plan.task.name)
        return used
    trained = _trained(context, plan)
    if trained is None:
        if not context.trains:
            raise ValueError(_untrained(context, plan.task.name))
        folder = training_folder(context, plan)
        open_folder(folder, plan.provenance())
        with hold(folder, holder=f"the training of the {plan.task.name}") as lease:
            trained = _trained(context, plan)  # perhaps by the run that this one has waited for
            if trained is None:
                trained = _trained_now(context, plan, folder, lease)
            else:
                is_there(plan.task.name)
    else:
        is_there(plan.task.name)
    put_in_use(context.config.out, plan.task.name, trained, num_rows=plan.rows.num_rows, **_use(context, plan))
    return trained


def _trained_now(context: Context, plan: NetworkPlan, folder: str, lease: Lease) -> Artifact:
    uri = storage.join(folder, CHECKPOINT)
    if plan.asked is not None:
        write_asked(plan.asked, uri)
    if plan.warning:
        logger.warning("%s: %s", plan.task.name, plan.warning)
    with step(plan.task.name, unit="batches") as counted:
        epochs = plan.training.section.epochs
        counted.note = f"{epochs} epoch{'s' if epochs > 1 else ''} of {plan.rows.num_rows:,} images"
        _train(context, plan, folder, lease)
    return Artifact(uri, read_metadata(uri, task=plan.task.name)["digest"])


def _untrained(context: Context, name: str) -> str:
    """What is said where a command that trains nothing needs a network that isn't there."""
    last = find_last_run(context.config.out)
    changed = [] if last is None else last.differences(context.config)
    way_out = "train it first: `raypipe run CONFIG` with the same overrides"
    if changed:
        way_out = f"its last run had other options ({', '.join(changed)}); give those, or {way_out}"
    return f"{context.config.out} has no {name} that was trained with these options: {way_out}"


def find_trained(context: Context, plan: NetworkPlan) -> Artifact | None:
    """The checkpoint of a plan that a run takes without a training; None where it trains one."""
    used = find_network_in_use(context, plan)
    return _trained(context, plan) if used is None else used.network


def find_network_in_use(context: Context, plan: NetworkPlan) -> Use | None:
    """What a run takes for a plan without looking at its rows; None where there is nothing, or it is renewed."""
    if context.retrain == "all":
        return None
    return find_use(context.config.out, plan.task.name, **_use(context, plan))


def _in_use(context: Context, plan: NetworkPlan) -> Artifact | None:
    return find_in_use(context.config.out, plan.task.name, **_use(context, plan))


def _use(context: Context, plan: NetworkPlan) -> dict[str, Any]:
    rows, config = plan.provenance(), context.config
    # These choose rows: as options they renew a network, as rows of a set that grows they don't.
    chosen_by = [config.splits.train, plan.training.section.max_images]
    return {
        "options": digest([plan.options, *chosen_by]),
        "classes": plan.classes,
        "rows": digest([rows["rows"], rows["validated_rows"]]),
    }


def _trained(context: Context, plan: NetworkPlan) -> Artifact | None:
    uri = storage.join(training_folder(context, plan), CHECKPOINT)
    return Artifact(uri, read_metadata(uri, task=plan.task.name)["digest"]) if has_checkpoint(uri) else None


def training_folder(context: Context, plan: NetworkPlan) -> str:
    """The folder of a network's training, which was begun where it has a record."""
    return storage.join(context.config.out, plan.task.name, digest(plan.provenance()))


def _train(context: Context, plan: NetworkPlan, folder: str, lease: Lease) -> None:
    import ray  # takes seconds, as the next ones
    from ray.train import ScalingConfig

    from raypipe.training.loop import LoopSettings
    from raypipe.training.trainer import train

    columns_after([*plan.rows.column_names, *DRAWN], [plan.crops])  # before anything starts
    config = context.config
    resources = plan_training(
        plan.task.name,
        plan.training.section.batch_size,
        context.machine,
        config.cluster,
        validates=plan.validated_rows is not None,
    )
    loaders = processes("loader", actors=resources.loaders, cpus=resources.loader_cpus)
    crops = replace(plan.crops, recolours=not resources.gpus)  # a card changes colours faster than its loaders
    rows = ray.put(rows_to_feed(plan.rows, crops))
    feed = make_feed(rows, crops, plan.training, loaders, factors=plan.factors, row_timeout=config.cluster.row_timeout)
    validation = None
    if plan.validated_rows is not None:
        actors = processes("validation", actors=resources.validation_actors, cpus=resources.validation_cpus)
        num_classes = len(plan.classes) + 1
        validation = Validation(
            feed=make_validation_feed(ray.put(plan.validated_rows), actors, config, num_classes=num_classes),
            num_classes=num_classes,
            max_side=config.images.max_side,
            precision=config.precision,
        )
    task = plan.task
    if isinstance(task.weights, str):
        staged = stage_weights(task.weights, out=config.out, preprocessing=task.preprocessing)
        task = replace(task, staged_weights=staged)
    settings = LoopSettings(
        task=task,
        training=plan.training,
        feed=feed,
        num_images=plan.rows.num_rows,
        threads=resources.threads,
        state_seconds=60 * config.cluster.state_minutes,
        validation=validation,
        check=partial(check_epoch, folder, lease.epoch),
    )
    elastic = resources.min_workers < resources.workers
    scaling = ScalingConfig(  # type: ignore[call-arg] # seen as that of Ray Train's first version
        num_workers=(resources.min_workers, resources.workers) if elastic else resources.workers,  # type: ignore[arg-type]
        use_gpu=resources.gpus > 0,
        resources_per_worker={"CPU": resources.cpus, "GPU": resources.gpus},
        label_selector=without_nodes(sick_nodes()) or None,
        # Another width starts the workers anew from the last state: not so often that states are lost for it.
        elastic_resize_monitor_interval_s=max(60, 90 * config.cluster.state_minutes),
    )
    each = f"{resources.cpus:g} CPUs and {resources.gpus:g} GPUs"
    needs = f"{resources.min_workers} workers, each of {each}, and their loaders"
    with watch_start(f"training of the {plan.task.name}", needs, timeout=config.cluster.start_timeout):
        train(settings, folder=folder, classes=plan.classes, scaling=scaling, check=lease.check)


def crop_options(context: Context, training: Training, task: TrainingTask) -> dict[str, Any]:
    """Options that all stages of crops take."""
    images = context.config.images
    preprocessing = task.preprocessing or default_preprocessing(task.backbone)
    return {
        "crop_size": training.section.crop_size,
        "fill": tuple(int(value) for value in preprocessing.fill),
        "jitter": training.jitter,
        "seed": training.seed,
        "max_side": images.max_side,
        "windows": images if images.by_windows else None,
    }


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
