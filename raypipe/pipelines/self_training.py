"""Self-training: the segmentation network learns again, from its own masks, as long as they are better than the last.

Better is what a score says that needs no truth: class consistency, what the classifier finds inside a mask and misses
outside. Neither network has optimised it.
"""

import json
import logging
from dataclasses import asdict

import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context, draw, stream_of, with_shards
from raypipe.pipelines.gate import DECISION_FILE, Decision, weigh
from raypipe.pipelines.masks import gate_masks_step
from raypipe.pipelines.seeds import decode_step
from raypipe.pipelines.segmenter import segment_steps, segment_stream, train_segmenter
from raypipe.schema import GATES, UNSUPERVISED, WEAK
from raypipe.stages.load_shards import LoadMaskPair
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, run_stream
from raypipe.streams.sink import SHARDS

logger = logging.getLogger(__name__)


def self_train(
    context: Context,
    *,
    segmenter: str,
    segmenter_digest: str,
    masks: str,
    masks_digest: str,
    classifier: str,
    classifier_digest: str,
) -> tuple[str, str, list[Decision]]:
    """Runs the rounds that `segmenter.rounds` asks for, unless one is rejected.

    Args:
        context: config and manifest.
        segmenter: URI of the network that was trained on the pseudo-masks, and its digest.
        segmenter_digest: see `segmenter`.
        masks: folder of the pseudo-masks, and its digest.
        masks_digest: see `masks`.
        classifier: URI of the classifier that judges, and its digest.
        classifier_digest: see `classifier`.

    Returns:
        URI and digest of the last network that was kept, and each round's decision.
    """
    decisions: list[Decision] = []
    for number in range(1, context.config.segmenter.rounds + 1):
        own_masks, own_digest = _segment(context, segmenter=segmenter, segmenter_digest=segmenter_digest)
        inputs = {"before": masks_digest, "after": own_digest, "classifier": classifier_digest}
        decision = _decide(context, number, masks, own_masks, classifier=classifier, inputs=inputs)
        logger.info("self-training: %s", decision)
        decisions.append(decision)
        if not decision.kept:
            break
        masks, masks_digest = own_masks, own_digest
        segmenter, segmenter_digest = train_segmenter(
            context,
            masks=masks,
            masks_digest=masks_digest,
            classifier=classifier,
            classifier_digest=classifier_digest,
            own_masks=True,
        )
    return segmenter, segmenter_digest, decisions


def _segment(context: Context, *, segmenter: str, segmenter_digest: str) -> tuple[str, str]:
    """The network's masks of the training images, within their labels where they have any; folder and digest."""
    rows = context.supervised_rows(context.config.splits.train)
    rows = rows.filter(pc.is_in(rows["supervision"], pa.array([WEAK, UNSUPERVISED])))
    is_weak = pc.equal(rows["supervision"], WEAK)
    parts = [
        Part(part, segment_steps(context, segmenter=segmenter, within_labels=within_labels))
        for within_labels, part in ((True, rows.filter(is_weak)), (False, rows.filter(pc.invert(is_weak))))
        if part.num_rows
    ]
    stream = segment_stream(context, segmenter_digest=segmenter_digest, rows=rows, within_labels=True)
    logger.info("self-training: %s", run_stream(stream, *parts))
    return stream.folder, stream.folder.rsplit("/", 1)[-1]


def _decide(
    context: Context, number: int, before: str, after: str, *, classifier: str, inputs: dict[str, str]
) -> Decision:
    """Whether the masks `after` are more consistent than those `before`, on a sample of the weakly labelled images."""
    rows = context.supervised_rows(context.config.splits.train)
    rows = rows.filter(pc.equal(rows["supervision"], WEAK)).drop_columns(["supervision"])
    rows = rows.filter(pc.fill_null(pc.greater(pc.list_value_length(rows["labels"]), 0), False))  # noqa: FBT003
    for folder, name in ((before, "before_uri"), (after, "shard_uri")):
        rows, _ = with_shards(rows, folder)
        rows = rows.rename_columns({"shard_uri": name})
    sample = rows.take(pa.array(draw(rows["image_id"].to_pylist(), context.config.refinement.gate_images), pa.int64()))
    cams = context.config.cams.model_dump(include={"output_stride", "precision"})
    record = Record(stage="gate", config={"judged": f"round {number}", **cams}, inputs=inputs)
    stream = stream_of(context, record, GATES, budget=Budget(max_fraction=1))
    uri = storage.join(stream.folder, DECISION_FILE)
    if storage.exists(uri):
        return Decision(**json.loads(storage.read_bytes(uri)))
    steps = [
        decode_step(context),
        Step(stage=LoadMaskPair, batch_size=8),
        gate_masks_step(context, classifier=classifier, keep_better=False),
    ]
    run_stream(stream, Part(sample, steps))
    scores = read_shards(storage.join(stream.folder, SHARDS), schema=GATES)
    judged = (scores[name].to_pylist() for name in ("score_before", "score_after"))
    decision = weigh(*judged, refinement=f"round {number}", judge="class consistency")
    storage.write_bytes_atomic(uri, json.dumps(asdict(decision), indent=1).encode())
    return decision
