"""Self-training: the segmentation network learns again, from its own masks, as long as they are better than the last.

Better is what a score says that needs no truth: class consistency, what the classifier finds inside a mask and misses
outside. Neither network has optimised it.
"""

import logging

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context, draw
from raypipe.pipelines.gate import SAMPLE_SIZE, weigh
from raypipe.pipelines.held_rows import held, locate
from raypipe.pipelines.segmenter import segment_plan, train_segmenter
from raypipe.pipelines.steps import decode_images, fetch_images, gate_masks
from raypipe.results import Decision
from raypipe.schema import GATES, SHARD_URI, UNSUPERVISED, WEAK
from raypipe.stages.load_shards import LoadMaskPair
from raypipe.streams.plan import Plan
from raypipe.streams.sink import SHARDS

logger = logging.getLogger(__name__)


def self_train(
    context: Context, *, segmenter: Artifact, masks: Artifact, classifier: Artifact
) -> tuple[Artifact, list[Decision]]:
    """Runs the rounds that `segmenter.rounds` asks for, as long as they help.

    The first decision is on the network's own masks: whether they are better than the pseudo-masks, and so worth
    learning from. Each round then trains a network on the own masks of the last one and keeps it where its masks are
    better than those that it has learned from.

    Args:
        context: config and manifest.
        segmenter: the network that was trained on the pseudo-masks.
        masks: folder of the pseudo-masks.
        classifier: the classifier that judges.

    Returns:
        The last network that was kept, and the decisions.
    """
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
    rows = rows.filter(pc.is_in(rows["supervision"], pa.array([WEAK, UNSUPERVISED])))
    labels = pc.if_else(pc.equal(rows["supervision"], WEAK), rows["labels"], pa.scalar(None, rows["labels"].type))
    rows = rows.set_column(rows.column_names.index("labels"), "labels", labels)
    own_masks, summary = context.run(segment_plan(context, segmenter=segmenter, within_labels=True), rows)
    logger.info("self-training: %s", summary)
    return own_masks


def _decide(context: Context, name: str, before: Artifact, after: Artifact, classifier: Artifact) -> Decision:
    """Whether the masks `after` are more consistent than those `before`, on a sample of the weakly labelled images."""
    rows = context.supervised_rows(context.config.splits.train)
    rows = rows.filter(pc.equal(rows["supervision"], WEAK)).drop_columns(["supervision"])
    rows = rows.filter(pc.fill_null(pc.greater(pc.list_value_length(rows["labels"]), 0), False))  # noqa: FBT003
    rows = locate(held(rows, after), before, prefix="before_")
    rows = rows.filter(pc.is_valid(rows[f"before_{SHARD_URI}"])).sort_by("image_id")
    sample = rows.take(pa.array(draw(rows["image_id"].to_pylist(), SAMPLE_SIZE), pa.int64()))
    plan = Plan(
        name="gate",
        stages=(
            fetch_images(context),
            LoadMaskPair(before=before, after=after),
            decode_images(context),
            gate_masks(context, classifier, keep_better=False),
        ),
        schema=pa.schema([field for field in GATES if not field.name.startswith("walk")]),
        classes=context.classes,
    )
    judged, _ = context.run(plan, sample, budget=Budget(max_fraction=1))
    scores = read_shards(storage.join(judged.uri, SHARDS), columns=plan.schema.names, schema=GATES)
    scores = scores.filter(pc.is_in(scores["image_id"], sample["image_id"].combine_chunks()))
    values = (scores[name].to_pylist() for name in ("refined_before", "refined_after"))
    decision = weigh(*values, refinement=name, judge="class consistency")
    logger.info("self-training: %s", decision)
    return decision
