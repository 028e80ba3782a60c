"""Looks at what a run has made, by the digests that it would give it: what is done, what would be computed, and why.

Nothing is computed or written, no image is read, and no Ray is needed; where it is connected, many rows are counted in
its tasks. As long as a network isn't trained, nobody knows the digest of what is made with it: such steps follow.
"""

from dataclasses import replace

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import to_yaml
from raypipe.doctor.workload import runs_gate
from raypipe.pipelines.affinity import affinity_plan, find_frozen
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import CONFIG_FILE, Context
from raypipe.pipelines.evaluate import has_truth, scores_plan, truth_rows
from raypipe.pipelines.gate import gate_streams, read_gates, sample_rows
from raypipe.pipelines.in_use import OtherClasses
from raypipe.pipelines.labels.knowledge import read_label_precision, say
from raypipe.pipelines.last_run import OtherManifest, check_manifest
from raypipe.pipelines.masks import masks_plan
from raypipe.pipelines.masks_file import find_masks_file
from raypipe.pipelines.needs import makes_seeds, uses_classifier
from raypipe.pipelines.networks import given_checkpoint
from raypipe.pipelines.refit import find_refit, refit_plan, refits
from raypipe.pipelines.saliency_maps import lacks_saliency, saliency_plan, saliency_weights, unmapped_rows
from raypipe.pipelines.seeds import given_seeds, seeds_plan
from raypipe.pipelines.segmenter import has_weak_rows, segment_plan, segment_rows, segmenter_plan
from raypipe.results import Decision
from raypipe.stages.networks import REFIT
from raypipe.status.changes import earlier_folders
from raypipe.status.content import State, Status, Step
from raypipe.status.steps import Steps
from raypipe.streams.collect import count
from raypipe.streams.plan import Plan
from raypipe.training.staging import find_weights
from raypipe.training.trainer import read_metrics
from raypipe.uri import parent

FEATURES = "features"
"""Of a frozen backbone, which takes the AffinityNet's place in its folder."""


def look(context: Context) -> Status:
    """The status of a run: its steps in their order, as `raypipe.run.Run` takes them.

    Args:
        context: config and manifest; what its `retrain` and `retry_quarantined` renew is to be made.

    Raises:
        ValueError: as the steps of a run, where the config and the manifest can't be used together.
    """
    steps, out = Steps(context), context.config.out
    classifier = _classifier(steps) if uses_classifier(context) else None
    maps = given_seeds(context) or (_refit(steps, classifier) if refits(context) else classifier)
    seeds = None if maps is None else seeds_plan(context, maps=maps)
    affinity, has_affinity = _affinity(steps, seeds, classifier)
    masks, decisions = None, list[Decision]()
    if maps is None or not has_affinity or (uses_classifier(context) and classifier is None):
        if runs_gate(context):
            steps.follow("gate")
        steps.follow("masks")
    else:
        masks, decisions = _masks(steps, maps, affinity, classifier)
    segments = _segments(steps, masks, classifier) if context.config.segmenter.enabled else None
    if has_truth(context):
        _scores(steps, masks, seeds, segments)
    of_masks = steps.get("masks")
    account = None if of_masks is None else of_masks.account
    return Status(
        out=out,
        steps=steps.found,
        num_images=count(context.rows(context.config.splits.masks)) if account is None else account.num_rows,
        at_work=steps.at_work,
        labels=[] if classifier is None else _labels(context, classifier),
        gates=decisions,
        differs=[] if steps.last is None else steps.last.differences(context.config, context.classes),
        last_masks=find_masks_file(out),
    )


def look_whatever(context: Context) -> Status:
    """The status of a run, also of one that would be refused because of what its folder holds.

    Where networks in use are of other classes, its steps are those of a run that trains anew.
    """
    refusals = []
    try:
        check_manifest(context, reuse=False)
    except OtherManifest as error:
        refusals.append(str(error))
    try:
        found = look(context)
    except OtherClasses as error:
        refusals.append(str(error))
        found = look(replace(context, retrain="all"))
    return replace(found, refused=refusals[0]) if refusals else found


def _classifier(steps: Steps) -> Artifact | None:
    context = steps.context
    if given := given_checkpoint(context, task="classifier"):
        return steps.give("classifier", given)
    maps = None
    if lacks_saliency(context):
        weights = context.config.saliency.weights
        if weights and find_weights(weights, out=steps.out) is None:
            steps.follow("saliency", f"{weights} is downloaded first")
            steps.follow("classifier")
            return None
        maps = steps.stream(saliency_plan(context, saliency_weights(context)), unmapped_rows(context))
    return steps.network(classifier_plan(context, maps=maps))


def _refit(steps: Steps, classifier: Artifact | None) -> Artifact | None:
    """The classifier with refitted maps; None where it is to be made."""
    if classifier is None:
        steps.follow(REFIT)
        return None
    found = find_refit(steps.context, classifier)
    plan = refit_plan(steps.context, classifier)
    steps.found.append(
        Step(
            name=REFIT,
            state="missing" if found is None else "done",
            artifact=found,
            seconds=steps.seconds_of(plan),
            seconds_left=0 if found else steps.seconds_before(REFIT),
        )
    )
    return found


def _affinity(steps: Steps, seeds: Plan | None, classifier: Artifact | None) -> tuple[Artifact | None, bool]:
    """The network to walk along, None along plain colours; and whether it is known."""
    context, config = steps.context, steps.context.config
    if config.walk.affinity == "rgb":
        return None, True
    if given := given_checkpoint(context, task="affinity"):
        return steps.give("affinity", given), True
    start = classifier if config.affinity.start == "classifier" else None
    waits = config.affinity.start == "classifier" and classifier is None
    if not makes_seeds(config):
        renewed = bool(earlier_folders(steps.out, "affinity"))
        if waits:
            steps.follow(FEATURES)
            steps.found[-1] = replace(steps.found[-1], is_renewed=renewed, seconds_left=0)
            return None, False
        frozen = find_frozen(context, classifier=start)
        state: State = "missing" if frozen is None else "done"
        why = f"those of the {'pretrained network' if start is None else 'classifier'} as they are"
        steps.found.append(Step(name=FEATURES, state=state, why=why, artifact=frozen, is_renewed=renewed))
        return frozen, frozen is not None
    if seeds is None:
        steps.follow("seeds")
    else:
        made = steps.stream(seeds, context.seed_rows())
        if not waits and steps.has_rows("seeds"):
            network = steps.network(affinity_plan(context, seeds=made, classifier=start))
            return network, network is not None
    steps.follow("affinity")
    return None, False


def _masks(
    steps: Steps, maps: Artifact, affinity: Artifact | None, judge: Artifact | None
) -> tuple[Artifact | None, list[Decision]]:
    """The masks and what the gates let through to them; None where that is to be decided."""
    context = steps.context
    if runs_gate(context):
        decided, left = gate_streams(context, maps=maps, affinity=affinity, judge=judge)
        if not left:
            seconds = sum(steps.seconds_of(plan) for plan in decided)
            steps.found.append(Step(name="gate", state="done", seconds=seconds))
        else:
            steps.stream(left[0], sample_rows(context))  # what it has scored stays, also where it decides again
            if not steps.found[-1].is_left:
                renewed = "" if context.retrain == "none" else f"--retrain={context.retrain} "
                why = f"{renewed}decides {'again ' if renewed else ''}by the scores that are there"
                steps.found[-1] = replace(steps.found[-1], state="begun", why=why, is_renewed=bool(renewed))
        if steps.found[-1].is_left:
            steps.follow("masks")
            return None, []
    gated = read_gates(context, maps=maps, affinity=affinity, judge=judge)
    plan = masks_plan(gated.context, maps=maps, affinity=affinity, judge=judge)
    return steps.stream(plan, context.rows(context.config.splits.masks)), gated.decisions


def _segments(steps: Steps, masks: Artifact | None, classifier: Artifact | None) -> Artifact | None:
    context, options = steps.context, steps.context.config.segmenter
    segmenter, learns = given_checkpoint(context, task="segmenter"), has_weak_rows(context)
    if segmenter is not None:
        steps.give("segmenter", segmenter)
    elif (options.start == "classifier" and classifier is None) or (learns and not steps.has_rows("masks")):
        steps.follow("segmenter")
    else:
        start = classifier if options.start == "classifier" else None
        segmenter = steps.network(segmenter_plan(context, masks=masks if learns else None, classifier=start))
        if segmenter is not None and learns and options.rounds:
            # Which network is kept is judged in each run once more, from what is there.
            if not steps.any_left and _has_ended(context):
                steps.found.append(Step(name="segments", state="done"))
            else:
                steps.follow("segments", "rounds of self-training are judged first")
            return None
    if segmenter is None:
        steps.follow("segments")
        return None
    return steps.stream(segment_plan(context, segmenter=segmenter), segment_rows(context))


def _has_ended(context: Context) -> bool:
    """Whether the last whole run that came to its end had these very options."""
    uri = storage.join(context.config.out, CONFIG_FILE)
    return storage.exists(uri) and storage.read_bytes(uri) == to_yaml(context.config).encode()


def _scores(steps: Steps, masks: Artifact | None, seeds: Plan | None, segments: Artifact | None) -> None:
    """Of masks and maps; a segmentation network's masks are scored with them."""
    context = steps.context
    if masks is None or seeds is None or steps.any_left:
        steps.follow("scores")
        return
    steps.stream(scores_plan(context, masks=masks, seeds=seeds.artifact(steps.out)), truth_rows(context))
    if segments is not None and not steps.any_left:
        steps.found.pop()
        steps.stream(scores_plan(context, masks=segments, seeds=None), truth_rows(context))


def _labels(context: Context, classifier: Artifact) -> list[str]:
    known, epochs = read_label_precision(classifier), read_metrics(parent(classifier.uri))
    if known is None:
        return []
    learned = epochs[-1]["num_images"] if epochs else None
    return [text for _, text in say(known, context.config.training("classifier"), num_images=learned)]
