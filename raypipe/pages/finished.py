"""Finds what a run has made, by the digests that it would give it; computes nothing and needs no Ray."""

from dataclasses import dataclass

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.pipelines.affinity import affinity_plan, find_frozen
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import Context
from raypipe.pipelines.gate import read_gates
from raypipe.pipelines.masks import masks_plan
from raypipe.pipelines.needs import uses_classifier
from raypipe.pipelines.networks import find_trained, given_checkpoint
from raypipe.pipelines.refit import find_refit, refits
from raypipe.pipelines.saliency_maps import find_saliency
from raypipe.pipelines.seeds import given_seeds, seeds_plan
from raypipe.results import Decision


class NotFinished(ValueError):  # noqa: N818 - a state, not a mistake
    """The requested output has not been computed yet."""


@dataclass(frozen=True, kw_only=True)
class FinishedMasks:
    """A run's masks and what made them."""

    context: Context
    """Its config lacks what the gates rejected."""
    decisions: list[Decision]
    maps: Artifact
    """The classifier's checkpoint, or what given seeds are known by."""
    judge: Artifact | None
    """The checkpoint of the classifier that judges; None where the seeds came without one."""
    affinity: Artifact | None
    """None where the walk goes along plain colours."""
    seeds: Artifact
    """May be missing where the maps were computed in the masks' stream."""
    masks: Artifact


def find_masks(context: Context) -> FinishedMasks:
    """The masks of a config.

    Raises:
        NotFinished: if there are none, with what to run first.
    """
    maps = given_seeds(context) or _maps(context)
    judge = _classifier(context) if uses_classifier(context) else None
    seeds = seeds_plan(context, maps=maps).artifact(context.config.out)
    affinity = None if context.config.walk.affinity == "rgb" else _affinity(context, seeds)
    gated = read_gates(context, maps=maps, affinity=affinity, judge=judge)
    masks = masks_plan(gated.context, maps=maps, affinity=affinity, judge=judge).artifact(context.config.out)
    if not storage.exists(masks.uri):
        raise _not_finished(context, "masks")
    return FinishedMasks(
        context=gated.context,
        decisions=gated.decisions,
        maps=maps,
        judge=judge,
        affinity=affinity,
        seeds=seeds,
        masks=masks,
    )


def _classifier(context: Context) -> Artifact:
    """The given classifier, or the one that was trained with this config."""
    if given := given_checkpoint(context, task="classifier"):
        return given
    maps = find_saliency(context)
    if trained := find_trained(context, classifier_plan(context, maps=maps)):
        return trained
    raise _not_finished(context, "classifier")


def _maps(context: Context) -> Artifact:
    """The classifier that makes the maps, refitted where the config asks."""
    classifier = _classifier(context)
    if not refits(context):
        return classifier
    if refit := find_refit(context, classifier):
        return refit
    raise _not_finished(context, "refitted classifier")


def _affinity(context: Context, seeds: Artifact) -> Artifact:
    """The given AffinityNet, or the one that was trained with this config."""
    if given := given_checkpoint(context, task="affinity"):
        return given
    classifier = _classifier(context) if context.config.affinity.start == "classifier" else None
    if context.config.walk.affinity == "frozen":
        if frozen := find_frozen(context, classifier=classifier):
            return frozen
        raise _not_finished(context, "frozen backbone")
    if storage.exists(seeds.uri):
        trained = find_trained(context, affinity_plan(context, seeds=seeds, classifier=classifier))
        if trained is not None:
            return trained
    raise _not_finished(context, "AffinityNet")


def _not_finished(context: Context, missing: str) -> NotFinished:
    return NotFinished(
        f"{context.config.out} has no {missing} of this config; `raypipe masks CONFIG` makes the masks and all that "
        "they need"
    )
