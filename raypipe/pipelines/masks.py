"""Masks: class activation maps, walked along affinities, refined, encoded."""

from dataclasses import replace

import pyarrow as pa

from raypipe.artifacts import Artifact
from raypipe.pipelines.context import Context
from raypipe.pipelines.held_rows import locate, with_quarantined
from raypipe.pipelines.seeds import find_seeds, run_seeds
from raypipe.pipelines.steps import (
    compute_cams,
    decode_images,
    encode_masks,
    fetch_images,
    gate_masks,
    gate_walk,
    propagate_cams,
    refine_masks,
)
from raypipe.results import StreamSummary
from raypipe.schema import MASKS
from raypipe.stages.base import Stage
from raypipe.stages.load_shards import LoadCams
from raypipe.streams.plan import Plan


def masks_plan(context: Context, *, maps: Artifact, affinity: Artifact | None) -> Plan:
    """FetchImages → DecodeImages → ComputeCams → PropagateCams → RefineMasks → EncodeMasks.

    With `refinement.gate=image`, GateWalk is in the place of PropagateCams, and GateMasks comes last. With
    `refinement.device=gpu`, RefineOnDevice comes before RefineMasks.

    Args:
        context: config and manifest.
        maps: the classifier's checkpoint, or the folder of given maps.
        affinity: the AffinityNet's checkpoint; None with `walk.affinity=rgb`.
    """
    gated = context.config.refinement.gate == "image"
    # Nothing judges a walk along colours.
    walk = gate_walk(context, affinity, keep_better=True) if gated and affinity else propagate_cams(context, affinity)
    judge = gated and context.config.refinement.method != "none"
    return Plan(
        name="masks",
        stages=(
            fetch_images(context),
            decode_images(context),
            compute_cams(context, maps),
            walk,
            *refine_masks(context),
            encode_masks(),
            *([gate_masks(context, maps, keep_better=True)] if judge else []),
        ),
        schema=MASKS,
        classes=context.classes,
    )


def run_masks(context: Context, *, maps: Artifact, affinity: Artifact | None) -> tuple[Artifact, StreamSummary]:
    """Computes the masks that aren't there yet; arguments as of `masks_plan`."""
    plan = masks_plan(context, maps=maps, affinity=affinity)
    return context.run(*with_seeds(context, plan, context.rows(context.config.splits.masks), maps=maps))


def with_seeds(context: Context, plan: Plan, rows: pa.Table, *, maps: Artifact) -> tuple[Plan, pa.Table]:
    """Takes the maps of seeds that are there instead of computing them; the outputs are the same.

    Seeds that aren't finished are finished first. What is quarantined in them is quarantined again, with the same
    reason, and not read.

    Args:
        context: config and manifest.
        plan: one of its stages is `compute_cams`.
        rows: of the manifest.
        maps: as of `masks_plan`.

    Returns:
        The plan and the rows to run it with.
    """
    seeds = find_seeds(context, maps=maps)
    if seeds is None:
        return plan, rows
    seeds, _ = run_seeds(context, maps=maps)
    return taking_up(plan, rows, seeds, compute_cams(context, maps))


def taking_up(plan: Plan, rows: pa.Table, earlier: Artifact, computing: Stage) -> tuple[Plan, pa.Table]:
    """Takes the maps that an earlier stream has written instead of computing them.

    Args:
        plan: one of its stages equals `computing`.
        rows: all of which the earlier stream has finished or quarantined.
        earlier: its folder.
        computing: the stage that makes maps.
    """
    return loading_cams(plan, computing), with_quarantined(locate(rows, earlier), earlier)


def loading_cams(plan: Plan, computing: Stage) -> Plan:
    """The same plan with maps from shards in the place of the stage that equals `computing`; its digest stays."""
    made = next(stage for stage in plan.stages if stage == computing)
    return replace(plan, reuse=(made, LoadCams()))
