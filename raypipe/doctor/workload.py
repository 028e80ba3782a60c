"""What a run would start: its streams and its trainings, as the config asks for them, before anything is made."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

from raypipe.artifacts import Artifact
from raypipe.config import RunConfig
from raypipe.pipelines.context import Context
from raypipe.pipelines.needs import judges_refinement, makes_seeds, trains_segmenter, uses_classifier
from raypipe.streams.plan import Plan

if TYPE_CHECKING:
    from raypipe.data.checkpoints import Task

Step = Literal[
    "saliency", "classifier", "labels", "refit", "seeds", "affinity", "gate", "masks", "segmenter", "segments", "scores"
]
"""What a run makes, streams and trained networks, in its order."""

UNKNOWN = "…"
"""Digest of what isn't made yet, or hasn't been looked at: no resource depends on it."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """A network that a run trains."""

    task: "Task"
    batch_size: int
    """Images of all workers together."""
    validates: bool
    """Images are scored after each epoch."""

    @property
    def name(self) -> str:
        """As it is named beside the streams."""
        return f"training of the {self.task}"


def trains_classifier(context: Context) -> bool:
    """Whether a run trains a classifier."""
    return uses_classifier(context) and context.config.checkpoints.classifier is None


def predicts_saliency(context: Context) -> bool:
    """Whether a run predicts saliency maps, if the manifest lacks any."""
    config = context.config
    return trains_classifier(context) and config.classifier.saliency != "none" and config.saliency.weights is not None


def runs_gate(context: Context) -> bool:
    """Whether a run judges its refinements on a sample; a walk along colours, or of no steps, isn't judged."""
    config = context.config
    walks = config.walk.affinity != "rgb" and config.walk.num_steps > 0
    return config.refinement.gate == "run" and (walks or (judges_refinement(config) and uses_classifier(context)))


def trainings_of(context: Context) -> Iterator[Training]:
    """The networks that a run trains, in its order."""
    config = context.config
    if trains_classifier(context):
        yield Training(task="classifier", batch_size=config.classifier.batch_size, validates=False)
    if makes_seeds(config):
        yield Training(task="affinity", batch_size=config.affinity.batch_size, validates=False)
    if trains_segmenter(config):
        validates = bool(config.segmenter.validation_splits)
        yield Training(task="segmenter", batch_size=config.segmenter.batch_size, validates=validates)


def checkpoint(config: RunConfig, task: "Task") -> Artifact:
    """The checkpoint that the config names, or a placeholder whose URI is the task in capitals."""
    return Artifact(getattr(config.checkpoints, task) or task.upper(), UNKNOWN)


def parts_until(context: Context, until: Step) -> list[Plan | Training]:
    """The streams and trainings that a step and those before it would start, if nothing were made yet.

    Args:
        context: config and manifest, of which the classes are enough.
        until: the step; one of the segmentation network makes it, whether a run does or not.
    """
    if until in ("segmenter", "segments"):
        segmenter = context.config.segmenter.model_copy(update={"enabled": True})
        context = replace(context, config=context.config.model_copy(update={"segmenter": segmenter}))
    steps = get_args(Step)
    wanted = steps[: steps.index(until) + 1]
    trainings = [training for training in trainings_of(context) if training.task in wanted]
    return [*trainings, *(plan for plan in streams_of(context) if plan.name in wanted)]


def step_names(context: Context, until: Step) -> list[Step]:
    """Names of a step and those before it, in the order in which a run comes to them; arguments as `parts_until`.

    What the manifest's rows need nothing of isn't among them: saliency maps where none is missing, scores without
    true masks.
    """
    # torch takes seconds to import
    from raypipe.pipelines.evaluate import has_truth
    from raypipe.pipelines.saliency_maps import lacks_saliency

    parts = parts_until(context, until)
    names = {part.task if isinstance(part, Training) else part.name for part in parts}
    if "scores" in names and not has_truth(context):
        names.discard("scores")
    if "saliency" in names and not lacks_saliency(context):
        names.discard("saliency")
    return [step for step in get_args(Step) if step in names]


def streams_of(context: Context) -> list[Plan]:
    """The streams that a run computes, in its order.

    Whether saliency maps are missing, whether there are true masks to score with, and whether what the classifier knows
    is cross-validated, is known by the manifest's rows only: all of it is among them where the config allows.

    Args:
        context: config and manifest, of which the classes are enough.
    """
    # torch takes seconds to import
    from raypipe.pipelines.classifier import classifier_task
    from raypipe.pipelines.evaluate import scores_plan
    from raypipe.pipelines.gate import gate_plan
    from raypipe.pipelines.labels.precision import labels_plan
    from raypipe.pipelines.masks import masks_plan, taking_up
    from raypipe.pipelines.refit import refit_plan, refits
    from raypipe.pipelines.saliency_maps import saliency_plan
    from raypipe.pipelines.seeds import seeds_plan
    from raypipe.pipelines.segmenter import segment_plan
    from raypipe.pipelines.steps import compute_cams

    config = context.config
    judge = checkpoint(config, "classifier") if uses_classifier(context) else None
    maps = _given(context) or checkpoint(config, "classifier")
    affinity = None if config.walk.affinity == "rgb" else checkpoint(config, "affinity")
    computing = compute_cams(context, maps)

    def taking_up_seeds(plan: Plan) -> Plan:
        return taking_up(plan, seeds.artifact(config.out), computing) if makes_seeds(config) else plan

    seeds = seeds_plan(context, maps=maps)
    plans: list[Plan] = []
    if predicts_saliency(context) and config.saliency.weights:
        plans.append(saliency_plan(context, Artifact(config.saliency.weights, UNKNOWN)))
    if trains_classifier(context):
        classifier = checkpoint(config, "classifier")
        plans.append(labels_plan(context, classifier, classifier_task(context), cross_validates=True))
    if refits(context):
        plans.append(refit_plan(context, checkpoint(config, "classifier")))
    if makes_seeds(config):
        plans.append(seeds)
    if runs_gate(context):
        plans.append(taking_up_seeds(gate_plan(context, maps=maps, affinity=affinity, judge=judge)))
    masks = masks_plan(context, maps=maps, affinity=affinity, judge=judge)
    plans.append(taking_up_seeds(masks))
    if config.segmenter.enabled:
        plans.append(segment_plan(context, segmenter=checkpoint(config, "segmenter")))
    out = config.out
    plans.append(scores_plan(context, masks=masks.artifact(out), seeds=seeds.artifact(out)))
    return plans


def _given(context: Context) -> Artifact | None:
    """What given seeds would be known by; they needn't be there."""
    if context.provider is not None:
        return context.provider.artifact
    folder = context.config.checkpoints.seeds
    return None if folder is None else Artifact(folder, UNKNOWN)
