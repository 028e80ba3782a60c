"""Masks: class activation maps, walked along affinities, refined, encoded."""

from dataclasses import replace

from raypipe.artifacts import Artifact
from raypipe.outputs.load import Load
from raypipe.pipelines.context import Context
from raypipe.pipelines.labels.knowledge import knows_nothing
from raypipe.pipelines.needs import judge_of
from raypipe.pipelines.seeds import find_seeds, run_seeds
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
    walk_choice,
)
from raypipe.results import StreamSummary
from raypipe.schema import MASKS, SEEDS, columns
from raypipe.stages.base import Stage
from raypipe.streams.plan import Plan


def masks_plan(context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → PropagateCams → RefineMasks → EncodeMasks.

    With a gate, GateWalk is in the place of PropagateCams. With `refinement.gate=image`, GateMasks comes last, unless
    the classifier knows nothing. With `refinement.device=gpu`, RefineOnDevice comes before RefineMasks.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or what given seeds are known by.
        affinity: the AffinityNet's checkpoint, or that of a frozen backbone; None with `walk.affinity=rgb`.
        judge: of given seeds, the classifier that `refinement.gate` asks; None asks none.
    """
    judge = judge_of(context, maps=maps, judge=judge)
    walk = propagate_cams if walk_choice(context.config, affinity) == "given" else gate_walk
    refinement = context.config.refinement
    if refinement.gate != "image" or refinement.method == "none" or (judge is not None and knows_nothing(judge)):
        judge = None
    return Plan(
        name="masks",
        takes=given_loads(context, maps),
        stages=(
            fetch_images(context),
            decode_images(context),
            compute_cams(context, maps),
            walk(context, affinity, maps=maps),
            *refine_masks(context),
            encode_masks(),
            *([gate_masks(context, judge, keep_better=True)] if judge else []),
        ),
        schema=MASKS,
        classes=context.classes,
    )


def run_masks(
    context: Context, *, maps: Artifact, affinity: Artifact | None, judge: Artifact | None = None
) -> tuple[Artifact, StreamSummary]:
    """Computes the masks that aren't there yet; arguments as of `masks_plan`."""
    plan = masks_plan(context, maps=maps, affinity=affinity, judge=judge)
    return context.run(with_seeds(context, plan, maps=maps), context.rows(context.config.splits.masks))


def with_seeds(context: Context, plan: Plan, *, maps: Artifact) -> Plan:
    """Takes the maps of seeds that are there instead of computing them; the outputs are the same, and so is the digest.

    Seeds that aren't finished are finished first. What is quarantined in them is quarantined again, with the same
    reason, and not read.

    Args:
        context: config and manifest.
        plan: one of its stages is `compute_cams`.
        maps: as of `masks_plan`.
    """
    if find_seeds(context, maps=maps) is None:
        return plan
    seeds, _ = run_seeds(context, maps=maps)
    return taking_up(plan, seeds, compute_cams(context, maps))


def taking_up(plan: Plan, earlier: Artifact, computing: Stage) -> Plan:
    """Takes the maps that an earlier stream has written instead of computing them.

    Args:
        plan: one of its stages equals `computing`.
        earlier: folder of a stream that has finished or quarantined all rows.
        computing: the stage that makes maps.
    """
    made = next(stage for stage in plan.stages if stage == computing)
    cams = columns(SEEDS, "cam", "cam_height", "cam_width")
    return replace(plan, reuse=(made, Load(outputs=earlier, columns=cams, part_of_plan=False)))
