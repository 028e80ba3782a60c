"""The AffinityNet: what it is trained of, seeds and perhaps the classifier's weights."""

from raypipe.artifacts import Artifact
from raypipe.outputs.load import held
from raypipe.pipelines.context import Context
from raypipe.pipelines.learned_rows import draw_to_learn
from raypipe.pipelines.networks import NetworkPlan, crop_options, network_options, run_training
from raypipe.stages.crops import LoadAffinityCrops
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
