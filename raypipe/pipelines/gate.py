"""No-harm gates: a refinement is kept for a run only where a score that needs no truth says that it helps.

Decided once, on a sample that depends on the manifest alone, before the masks are made. What a gate rejects is switched
off in the masks' config and so changes their digest: masks depend on what was decided, whenever that was.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.config import Budget
from raypipe.data.shards import read_shards
from raypipe.pipelines.context import Context, draw, stream_of, with_shards
from raypipe.pipelines.masks import gate_masks_step, maps_step, masks_settings, parts_by_cams, refine_step, walk_step
from raypipe.pipelines.seeds import decode_step
from raypipe.schema import GATED_WALKS, GATES
from raypipe.stages.judge import GateWalk
from raypipe.stages.load_shards import LoadScores
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, run_stream
from raypipe.streams.sink import SHARDS

logger = logging.getLogger(__name__)

DECISION_FILE = "decision.json"
NUM_JUDGED = 64
"""Images with labels in the sample that a gate judges."""
COLOURS = "it walks along colours, so theirs would be no judge; it stays as configured"
"""On synthetic images (n = 64) that walk takes 18 points of mIoU and yet doubles the colours' separation."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What a gate says of one refinement."""

    refinement: str
    """walk | dcrf | pamr."""
    judge: str
    """The score; higher is better."""
    kept: bool
    reason: str
    num_images: int
    """That were judged."""
    before: float | None = None
    """Mean score without the refinement; None where no image was judged, as the next two."""
    after: float | None = None
    difference: float | None = None
    standard_error: float | None = None
    """Of the difference; None for less than two images."""

    def __str__(self) -> str:
        return f"{self.refinement} {'kept' if self.kept else 'rejected'}: {self.reason}"


@dataclass(frozen=True)
class Gated:
    """What the gates let through."""

    context: Context
    """Its config lacks what was rejected."""
    decisions: list[Decision]


def run_gates(
    context: Context,
    *,
    classifier: str,
    classifier_digest: str,
    affinity: str | None,
    affinity_digest: str | None,
    seeds: str | None,
) -> Gated:
    """Decides what isn't decided yet; nothing unless `refinement.gate` is `run`. Arguments: those of `run_masks`.

    The refinement is judged on masks of the walk as the walk's own gate left it.
    """
    if context.config.refinement.gate != "run":
        return Gated(context, [])
    sample = sample_rows(context)
    inputs = _inputs(context, sample, classifier_digest, affinity_digest)

    def walk() -> tuple[Stream, list[Part]]:
        judge = walk_step(context, GateWalk, affinity=affinity, keep_better=False)

        def steps(*, reuse_cams: bool) -> list[Step]:
            return [decode_step(context), maps_step(context, classifier=classifier, reuse_cams=reuse_cams), judge]

        return _stream(context, "walk", GATED_WALKS, inputs), parts_by_cams(sample, seeds, steps)

    decisions = []
    if context.config.walk.affinity == "rgb":
        decisions.append(_COLOURS_WALK)
    elif context.config.walk.num_steps:
        decisions.append(_decide(*walk(), refinement="walk", judge="separation"))
        if not decisions[-1].kept:
            context = _changed(context, "walk", num_steps=0)
    if (method := context.config.refinement.method) != "none":
        # A stream of its own: with the walk's it would hold more networks than the masks', which clusters are made for.
        walks, parts = walk()
        _finish(walks, parts)
        steps = [
            decode_step(context),
            Step(stage=LoadScores, batch_size=8),
            refine_step(context),
            gate_masks_step(context, classifier=classifier, keep_better=False),
        ]
        walked, _ = with_shards(sample, walks.folder)
        stream = _stream(context, method, GATES, inputs)
        decisions.append(_decide(stream, [Part(walked, steps)], refinement=method, judge="class consistency"))
        if not decisions[-1].kept:
            context = _changed(context, "refinement", method="none")
    return Gated(context, decisions)


_COLOURS_WALK = Decision(refinement="walk", judge="separation", kept=True, reason=COLOURS, num_images=0)


def read_gates(context: Context, *, classifier_digest: str, affinity_digest: str | None) -> Gated:
    """What stored decisions let through; a refinement of which none is stored stays as configured.

    Args:
        context: config and manifest.
        classifier_digest: see `run_masks`.
        affinity_digest: see `run_masks`.
    """
    if context.config.refinement.gate != "run":
        return Gated(context, [])
    inputs = _inputs(context, sample_rows(context), classifier_digest, affinity_digest)
    decisions = []
    if context.config.walk.affinity == "rgb":
        decisions.append(_COLOURS_WALK)
    elif context.config.walk.num_steps and (walk := _stored(_stream(context, "walk", GATED_WALKS, inputs))):
        decisions.append(walk)
        if not walk.kept:
            context = _changed(context, "walk", num_steps=0)
    method = context.config.refinement.method
    if method != "none" and (refinement := _stored(_stream(context, method, GATES, inputs))):
        decisions.append(refinement)
        if not refinement.kept:
            context = _changed(context, "refinement", method="none")
    return Gated(context, decisions)


def sample_rows(context: Context) -> pa.Table:
    """Rows with labels that gates judge."""
    rows = context.rows(context.config.splits.masks)
    labelled = rows.filter(pc.fill_null(pc.greater(pc.list_value_length(rows["labels"]), 0), False))  # noqa: FBT003
    drawn = draw(labelled["image_id"].to_pylist(), NUM_JUDGED, seed=context.config.seed)
    return labelled.take(pa.array(drawn, pa.int64()))


def weigh(before: Sequence[float], after: Sequence[float], *, refinement: str, judge: str) -> Decision:
    """The decision from each image's scores: kept where they rise on average."""
    number = len(before)
    if not number:
        reason = "no image with labels could be judged, so it stays as configured"
        return Decision(refinement=refinement, judge=judge, kept=True, reason=reason, num_images=0)
    differences = np.asarray(after) - np.asarray(before)
    difference = float(differences.mean())
    error = float(differences.std(ddof=1) / np.sqrt(number)) if number > 1 else None
    spread = "" if error is None else f" ± {error:.4f}"
    return Decision(
        refinement=refinement,
        judge=judge,
        kept=difference > 0,
        reason=f"{judge} {np.mean(before):.4f} → {np.mean(after):.4f}, {difference:+.4f}{spread}, n = {number}",
        num_images=number,
        before=float(np.mean(before)),
        after=float(np.mean(after)),
        difference=difference,
        standard_error=error,
    )


def _decide(stream: Stream, parts: Sequence[Part], *, refinement: str, judge: str) -> Decision:
    """The stored decision, or one from the stream's scores, which is stored where images were judged."""
    if stored := _stored(stream):
        return stored
    _finish(stream, parts)
    scores = read_shards(storage.join(stream.folder, SHARDS), schema=GATES)
    before, after = (scores[name].to_pylist() for name in ("score_before", "score_after"))
    decision = weigh(before, after, refinement=refinement, judge=judge)
    if decision.num_images:
        uri = storage.join(stream.folder, DECISION_FILE)
        storage.write_bytes_atomic(uri, json.dumps(asdict(decision), indent=1).encode())
    return decision


def _stored(stream: Stream) -> Decision | None:
    uri = storage.join(stream.folder, DECISION_FILE)
    return Decision(**json.loads(storage.read_bytes(uri))) if storage.exists(uri) else None


def _finish(stream: Stream, parts: Sequence[Part]) -> None:
    """Runs a gate's stream. A sample of which every row fails decides nothing: how many may fail is for the masks."""
    try:
        run_stream(stream, *parts)
    except BudgetExceeded as error:
        logger.warning("gate: %s", error)


def _inputs(context: Context, sample: pa.Table, classifier_digest: str, affinity_digest: str | None) -> dict[str, str]:
    return {
        "classifier": classifier_digest,
        "affinity": affinity_digest or "none",
        "manifest": context.inputs_digest(sample),
    }


def _stream(context: Context, judged: str, schema: pa.Schema, inputs: dict[str, str]) -> Stream:
    """Where a gate's scores go."""
    settings = masks_settings(context.config)
    if judged == "walk":
        del settings["refinement"]  # which doesn't change it
    record = Record(stage="gate", config={"judged": judged, **settings}, inputs=inputs)
    return stream_of(context, record, schema, budget=Budget(max_fraction=1))


def _changed(context: Context, section: str, **values: Any) -> Context:
    changed = getattr(context.config, section).model_copy(update=values)
    return replace(context, config=context.config.model_copy(update={section: changed}))
