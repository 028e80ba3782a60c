"""The AffinityNet: what it is trained of, seeds and perhaps the classifier's weights; or a backbone in its place."""

from raypipe import storage
from raypipe.artifacts import Artifact, digest, identity
from raypipe.data.checkpoints import (
    CHECKPOINT,
    WEIGHTS_FILE,
    Checkpoint,
    has_checkpoint,
    read_metadata,
    write_checkpoint,
)
from raypipe.networks import build_frozen_features, load_weights
from raypipe.outputs.load import held
from raypipe.pipelines.context import Context
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.stages.networks import FROZEN
from raypipe.stages.shard_crops import LoadAffinityCrops
from raypipe.training.staging import stage_weights
from raypipe.training.tasks import AffinityTask


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
    wanted = held(context.rows(config.splits.train).select(["image_id", "image_uri", "labels"]), seeds)
    rows = draw_to_learn(wanted, classes=context.classes, number=config.affinity.max_images, seed=config.seed)
    if rows.num_rows == 0:
        raise ValueError(f"{seeds.uri} has no seeds of splits.train={config.splits.train}: run `raypipe seeds`")
    rows = rows.drop_columns(["labels"])  # of which the trimaps were made, and nothing else is
    return NetworkPlan(task=task, training=training, crops=crops, rows=rows, classes=context.classes)


def affinity_task(context: Context, *, classifier: Artifact | None) -> AffinityTask:
    """The AffinityNet that the config asks for; it may start from a classifier's checkpoint."""
    training = context.config.affinity
    return AffinityTask(
        **network_options(context, start=training.start, classifier=classifier),
        radius=training.radius,
        freeze_backbone=training.freeze_backbone,
    )


def freeze_backbone(context: Context, *, classifier: Artifact | None) -> Artifact:
    """Writes the backbone of `walk.affinity=frozen` as a checkpoint, unless it is there already.

    Args:
        context: config and manifest.
        classifier: checkpoint that the backbone is taken from where `affinity.start=classifier`.

    Raises:
        FileNotFoundError: there are no such weights.
        ValueError: the weights are another network's.
    """
    if found := find_frozen(context, classifier=classifier):
        return found
    options = network_options(context, start=context.config.affinity.start, classifier=classifier)
    network = build_frozen_features(options["backbone"])
    network.preprocessing = options["preprocessing"]
    weights = (
        stage_weights(options["weights"], out=context.config.out, preprocessing=network.preprocessing)
        if classifier is None
        else storage.join(classifier.uri, WEIGHTS_FILE)
    )
    load_weights(network, weights, read=storage.read_bytes)
    checkpoint = Checkpoint(
        task="affinity",
        backbone=options["backbone"],
        classes=context.classes,
        preprocessing=network.preprocessing.to_dict(),
        config=FROZEN,
        weights=network.state_dict(),
    )
    uri = _frozen_uri(context, classifier)
    write_checkpoint(checkpoint, uri)
    return Artifact(uri, checkpoint.digest)


def find_frozen(context: Context, *, classifier: Artifact | None) -> Artifact | None:
    """The backbone that `freeze_backbone` has written; None where there is none."""
    uri = _frozen_uri(context, classifier)
    return Artifact(uri, read_metadata(uri, task="affinity")["digest"]) if has_checkpoint(uri) else None


def _frozen_uri(context: Context, classifier: Artifact | None) -> str:
    options = network_options(context, start=context.config.affinity.start, classifier=classifier)
    made_of = digest([FROZEN, identity(options), context.classes])
    return storage.join(context.config.out, "affinity", made_of, CHECKPOINT)
