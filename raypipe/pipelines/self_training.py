"""Self-training: the segmentation network learns again, from its own masks, as long as they are better than the last.

Better is what a score says that needs no truth: class consistency, what the classifier finds inside a mask and misses
outside. Neither network has optimised it. As a gate's, a decision is kept while a set grows: otherwise a few new images
might give all of them another network.
"""

import json
import logging
from dataclasses import asdict, replace

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.data.rows import Part
from raypipe.outputs.load import Load, held
from raypipe.pipelines.context import MANIFEST_COLUMNS, Context
from raypipe.pipelines.gate import CONSISTENCY, DECISION_FILE, SAMPLE_SIZE, is_labelled, weigh
from raypipe.pipelines.labels.knowledge import knows_nothing
from raypipe.pipelines.segmenter import segment_plan, train_segmenter
from raypipe.pipelines.steps import decode_images, fetch_images, gate_masks
from raypipe.results import Decision, StreamSummary
from raypipe.schema import GATES, MASKS, UNSUPERVISED, WEAK, columns
from raypipe.streams.collect import drawn_ids, outputs_of
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)


def self_train(
    context: Context, *, segmenter: Artifact, masks: Artifact, classifier: Artifact
) -> tuple[Artifact, list[Decision]]:
    """Runs the rounds that `segmenter.rounds` asks for, as long as they help.

    The first decision is on the network's own masks: whether they are better than the pseudo-masks, and so worth
    learning from. Each round then trains a network on the own masks of the last one and keeps it where its masks are
    better than those that it has learned from. There is no round where the classifier knows nothing.

    Args:
        context: config and manifest.
        segmenter: the network that was trained on the pseudo-masks.
        masks: folder of the pseudo-masks.
        classifier: the classifier that judges.

    Returns:
        The last network that was kept, and the decisions.
    """
    if unjudged := knows_nothing(classifier):
        reason = f"{unjudged}; the network stays"
        return segmenter, [Decision(refinement="own masks", judge=CONSISTENCY, kept=False, reason=reason, num_images=0)]
    own_masks = _segment(context, segmenter)
    decisions = [_decide(context, "own masks", masks, own_masks, classifier)]
    for number in range(1, context.config.segmenter.rounds + 1):
        if not decisions[-1].kept:
            break
        trained = train_segmenter(context, masks=own_masks, classifier=classifier, own_masks=True)
        new_masks = _segment(context, trained)
        decisions.append(_decide(context, f"round {number}", own_masks, new_masks, classifier))
        if decisions[-1].kept:
            segmenter, own_masks = trained, new_masks
    return segmenter, decisions


def _segment(context: Context, segmenter: Artifact) -> Artifact:
    """The network's masks of the training images, within their labels where these teach anything."""
    rows = context.supervised_rows(context.config.splits.train)
    rows = rows.where(lambda table: pc.is_in(table["supervision"], pa.array([WEAK, UNSUPERVISED])))
    rows = rows.then(_with_labels_that_teach)
    own_masks, summary = context.run(segment_plan(context, segmenter=segmenter, within_labels=True), rows)
    logger.log(_level(summary), "self-training: %s", summary)
    return own_masks


def _with_labels_that_teach(rows: pa.Table, _: Part) -> pa.Table:
    labels = pc.if_else(pc.equal(rows["supervision"], WEAK), rows["labels"], pa.scalar(None, rows["labels"].type))
    return rows.set_column(rows.column_names.index("labels"), "labels", labels)


def _decide(context: Context, name: str, before: Artifact, after: Artifact, classifier: Artifact) -> Decision:
    """Whether the masks `after` are more consistent than those `before`, on a sample of the weakly labelled images.

    What was decided before holds, unless decisions are renewed.
    """
    new = columns(MASKS, "mask", "confidence", "areas", "mean_confidences")
    earlier = Load(outputs=before, columns=columns(MASKS, "mask"), names=("walk_mask",), prefix="before_")
    plan = Plan(
        name="gate",
        takes=(Load(outputs=after, columns=new), earlier),
        stages=(fetch_images(context), decode_images(context), gate_masks(context, classifier, keep_better=False)),
        schema=pa.schema([field for field in GATES if not field.name.startswith("walk")]),
        classes=context.classes,
    )
    uri = storage.join(plan.artifact(context.config.out).uri, DECISION_FILE)
    if context.retrain == "none" and storage.exists(uri):
        decision = Decision(**json.loads(storage.read_bytes(uri)))
        logger.debug("self-training: %s", decision)
        return decision
    rows = context.supervised_rows(context.config.splits.train)
    rows = rows.where(lambda table: pc.equal(table["supervision"], WEAK)).select(MANIFEST_COLUMNS).where(is_labelled)
    found = held(held(rows, after), before, prefix="before_")
    sample = rows.only(drawn_ids(found, SAMPLE_SIZE))
    judged, summary = context.run(plan, sample, budget=Budget(max_fraction=1))
    scores = outputs_of(judged, sample, plan.schema)
    values = (scores[name].to_pylist() for name in ("refined_before", "refined_after"))
    decision = weigh(*values, refinement=name, judge=CONSISTENCY)
    if not decision.num_images:  # nothing says that they are better, which a round is kept for
        decision = replace(decision, kept=False, reason="no image with labels could be judged; the network stays")
    else:
        storage.write_bytes_atomic(uri, json.dumps(asdict(decision), indent=1).encode())
    logger.log(_level(summary), "self-training: %s", decision)
    return decision


def _level(summary: StreamSummary) -> int:
    """The level at which the log has what a stream says: where it computed nothing, that was said before."""
    return logging.INFO if summary.num_computed else logging.DEBUG
