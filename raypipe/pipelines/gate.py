"""No-harm gates: a refinement is kept for a run only where a score that needs no truth says that it helps.

Decided once, on a sample of images that is drawn by their ids, before the masks are made; a set that grows keeps the
decision until it is renewed. What a gate rejects is switched off in the masks' config and so changes their digest:
masks depend on what was decided, whenever that was.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import Budget
from raypipe.data.rows import Rows
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels.knowledge import knows_nothing
from raypipe.pipelines.masks import with_seeds
from raypipe.pipelines.needs import has_given_seeds, judge_of
from raypipe.pipelines.steps import (
    compute_cams,
    decode_images,
    encode_masks,
    fetch_images,
    gate_masks,
    gate_walk,
    given_loads,
    propagate_cams,
    refine_masks,
)
from raypipe.results import Decision
from raypipe.schema import GATES
from raypipe.screen.step import is_there
from raypipe.stages.base import Stage
from raypipe.streams.budget import BudgetExceeded
from raypipe.streams.collect import draw_rows, outputs_of
from raypipe.streams.plan import Plan

logger = logging.getLogger(__name__)

DECISION_FILE = "decision.json"

CONSISTENCY = "class consistency"

SAMPLE_SIZE = 64
"""Images with labels that a gate judges."""

NO_CLASSIFIER = (
    "not judged, so it stays as configured: the seeds came without a classifier, and the run trains none; "
    "checkpoints.classifier names one (`raypipe train classifier CONFIG` makes one of the labels)"
)

PARTIAL = (
    "not judged, so it stays as configured: of places in some images nothing is known, and it alone brings masks there"
)

COLOURS = "it walks along colours, so theirs would be no judge; it stays as configured"
"""On synthetic images (n = 64) that walk takes 18 points of mIoU and yet doubles the colours' separation."""


@dataclass(frozen=True)
class Gated:
    """What the gates let through."""

    context: Context
    """Its config lacks what was rejected."""
    decisions: list[Decision]


def gate_plan(context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None) -> Plan:
    """The stages of the masks, with judges behind the walk and behind its refinement; arguments as of `masks_plan`.

    A walk along colours has no judge, nor has a mask that isn't refined, nor has its refinement without a classifier.
    """
    walk = (gate_walk if affinity else propagate_cams)(context, affinity, maps=maps)
    judge, judges = judge_of(context, maps=maps, judge=judge), list[Stage]()
    if context.config.refinement.method != "none" and judge is not None:
        judges = [*refine_masks(context), encode_masks(), gate_masks(context, judge, keep_better=False)]
    unjudged = (*(() if affinity else ("walk",)), *(() if judges else ("refined",)))
    return Plan(
        name="gate",
        takes=given_loads(context, maps),
        stages=(
            fetch_images(context),
            decode_images(context),
            compute_cams(context, maps),
            walk,
            *judges,
        ),
        schema=pa.schema([field for field in GATES if not field.name.startswith(unjudged)]),
        classes=context.classes,
    )


def run_gates(context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None) -> Gated:
    """Decides what isn't decided yet; nothing unless `refinement.gate` is `run`. Arguments as of `masks_plan`.

    One stream judges the walk and the refinement of walked masks. Only where the walk is rejected, another one judges
    the refinement of masks without it. What is decided now is shown, and each time what nobody can judge; the log alone
    has what was decided before.
    """
    new: list[Decision] = []

    def decide(context: Context, networks: _Networks) -> dict[str, Decision]:
        if context.retrain == "none" and (stored := _stored(context, networks)):
            is_there("gate")
            return stored
        if new:
            logger.info("gate: the walk is rejected, so what refines masks is judged once more, without it")
        decided = _decide(context, networks)
        new.extend(decided.values())
        return decided

    gated = _gated(context, _Networks(maps, affinity, judge_of(context, maps=maps, judge=judge)), decide=decide)
    for decision in gated.decisions:
        is_shown = decision in new or not decision.num_images
        logger.log(logging.INFO if is_shown else logging.DEBUG, "gate: %s", decision)
    return gated


def read_gates(context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None) -> Gated:
    """What stored decisions let through; a refinement of which none is stored stays as configured."""
    return _gated(context, _Networks(maps, affinity, judge_of(context, maps=maps, judge=judge)), decide=_stored)


def gate_streams(
    context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None
) -> tuple[list[Plan], list[Plan]]:
    """The streams whose scores a run has decided by, and those that it would decide by now, as far as they are known.

    Where a run renews its decisions, it has decided nothing. Arguments as of `masks_plan`.
    """
    decided: list[Plan] = []
    left: list[Plan] = []

    def note(context: Context, networks: _Networks) -> dict[str, Decision]:
        stored = _stored(context, networks)
        (decided if stored and context.retrain == "none" else left).append(networks.plan(context))
        return stored

    _gated(context, _Networks(maps, affinity, judge_of(context, maps=maps, judge=judge)), decide=note)
    return decided, left


class _Networks(NamedTuple):
    """Arguments as of `masks_plan`."""

    maps: Artifact
    affinity: Artifact | None
    judge: Artifact | None

    def plan(self, context: Context) -> Plan:
        return gate_plan(context, maps=self.maps, affinity=self.affinity, judge=self.judge)


Decide = Callable[[Context, _Networks], dict[str, Decision]]
"""The decisions on the walk and on the refinement of walked masks, as far as they are known."""


def _gated(context: Context, networks: _Networks, *, decide: Decide) -> Gated:
    config, method = context.config, context.config.refinement.method
    unjudged = [] if method == "none" else _unjudged(networks.judge, method)
    if config.refinement.gate != "run":
        return Gated(context, unjudged if config.refinement.gate == "image" else [])
    decisions = []
    judged: dict[str, Decision] | None = None
    if networks.affinity is None:
        decisions.append(Decision(refinement="walk", judge="objective", kept=True, reason=COLOURS, num_images=0))
    elif config.walk.num_steps:
        judged = decide(context, networks)
        decisions += [judged["walk"]] if "walk" in judged else []
        if decisions and not decisions[-1].kept:
            context, judged = _changed(context, "walk", num_steps=0), None
    if unjudged:
        decisions += unjudged
    elif method != "none":
        judged = decide(context, networks) if judged is None else judged
        decisions += [judged["refined"]] if "refined" in judged else []
        if "refined" in judged and not judged["refined"].kept:
            context = _changed(context, "refinement", method="none")
    return Gated(context, decisions)


def _unjudged(judge: Artifact | None, method: str) -> list[Decision]:
    """Why a classifier can't judge what refines masks; nothing where it can."""
    if judge is None:
        reason: str | None = NO_CLASSIFIER
    else:
        nothing = knows_nothing(judge)
        reason = nothing and f"{nothing}; it stays as configured"
    if reason is None:
        return []
    return [Decision(refinement=method, judge=CONSISTENCY, kept=True, reason=reason, num_images=0)]


def sample_rows(context: Context) -> Rows:
    """Rows with labels that gates judge."""
    return draw_rows(context.rows(context.config.splits.masks).where(is_labelled), SAMPLE_SIZE)


def is_labelled(rows: pa.Table) -> pa.ChunkedArray:
    """True for rows with at least one label."""
    return pc.fill_null(pc.greater(pc.list_value_length(rows["labels"]), 0), False)  # noqa: FBT003


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


def _decide(context: Context, networks: _Networks) -> dict[str, Decision]:
    """The decisions from the scores of a stream, which are in use from now on where images were judged."""
    plan, sample = networks.plan(context), sample_rows(context)
    try:
        context.run(with_seeds(context, plan, maps=networks.maps), sample, budget=Budget(max_fraction=1))
    except BudgetExceeded as error:  # a sample of which every row fails decides nothing: the masks' budget does
        logger.warning("gate: %s", error)
    scores = outputs_of(plan.artifact(context.config.out), sample, plan.schema)
    decisions = {}
    for judged, refinement, judge in (
        ("walk", "walk", "objective"),
        ("refined", context.config.refinement.method, CONSISTENCY),
    ):
        columns = [f"{judged}_before", f"{judged}_after"]
        if judged == "walk" and (networks.affinity is None or not context.config.walk.num_steps):
            continue
        if not set(columns) <= set(plan.schema.names):
            continue
        rows = scores.filter(pc.is_valid(scores[columns[0]]))
        decisions[judged] = weigh(*(rows[name].to_pylist() for name in columns), refinement=refinement, judge=judge)
        if judged == "walk" and len(rows) < len(scores) and has_given_seeds(context):
            decisions[judged] = replace(decisions[judged], kept=True, reason=PARTIAL)
    if any(decision.num_images for decision in decisions.values()):
        content = {name: asdict(decision) for name, decision in decisions.items()}
        storage.write_bytes_atomic(_decision_uri(context, networks), json.dumps(content, indent=1).encode())
    return decisions


def _stored(context: Context, networks: _Networks) -> dict[str, Decision]:
    uri = _decision_uri(context, networks)
    if not storage.exists(uri):
        return {}
    return {name: Decision(**values) for name, values in json.loads(storage.read_bytes(uri)).items()}


def _decision_uri(context: Context, networks: _Networks) -> str:
    """Where the decisions in use are: in the folder of the scores, whatever rows were judged."""
    return storage.join(networks.plan(context).artifact(context.config.out).uri, DECISION_FILE)


def _changed(context: Context, section: str, **values: Any) -> Context:
    changed = getattr(context.config, section).model_copy(update=values)
    return replace(context, config=context.config.model_copy(update={section: changed}))
