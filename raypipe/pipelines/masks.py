"""Masks: class activation maps, walked along affinities, refined, encoded."""

from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import pyarrow as pa

from raypipe.config import RunConfig
from raypipe.pipelines.context import Context, stream_of, with_shards
from raypipe.pipelines.seeds import cams_step, cpu_pool, decode_step, network_step
from raypipe.schema import MASKS
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.load_shards import LoadCams
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, StreamSummary, run_stream


class MaskInputs(TypedDict):
    """What `run_masks`, `run_gates` and `run_sweep` take, beside the context."""

    classifier: str
    classifier_digest: str
    affinity: str | None
    affinity_digest: str | None
    seeds: str | None


def masks_steps(context: Context, *, classifier: str, affinity: str | None, reuse_cams: bool) -> list[Step]:
    """DecodeImages → ComputeCams (or LoadCams) → PropagateCams → RefineMasks → EncodeMasks.

    With `refinement.gate=image`, GateWalk is in the place of PropagateCams, and GateMasks comes after RefineMasks.

    Args:
        context: config and manifest.
        classifier: the checkpoint's URI.
        affinity: the AffinityNet's; None with `walk.affinity=rgb`.
        reuse_cams: takes the maps from seed shards; the rows must have a `shard_uri`.
    """
    refinement = context.config.refinement
    walk, gates = walk_step(context, PropagateCams, affinity=affinity), []
    if refinement.gate == "image":
        if context.config.walk.affinity != "rgb":  # nothing judges a walk along colours
            walk = walk_step(context, GateWalk, affinity=affinity, keep_better=True)
        gates = [gate_masks_step(context, classifier=classifier, keep_better=True)]
    return [
        decode_step(context),
        maps_step(context, classifier=classifier, reuse_cams=reuse_cams),
        walk,
        refine_step(context),
        *(gates if refinement.method != "none" else []),
        Step(stage=EncodeMasks, batch_size=8, **cpu_pool(context)),
    ]


def maps_step(context: Context, *, classifier: str, reuse_cams: bool) -> Step:
    """Class activation maps, computed or from seed shards."""
    return Step(stage=LoadCams, batch_size=8) if reuse_cams else cams_step(context, classifier=classifier)


def walk_step(context: Context, stage: type[PropagateCams], *, affinity: str | None, **more: Any) -> Step:
    """PropagateCams, or a stage that does more (its other arguments in `more`)."""
    config = context.config
    args = {
        "checkpoint": affinity,
        "cam_stride": config.cams.out_stride,
        "max_side": config.images.max_side,
        "precision": config.precision,
        "radius": config.affinity.radius,
        **config.walk.model_dump(),
        **more,
    }
    return network_step(context, stage, args)


def refine_step(context: Context) -> Step:
    """From walked scores to masks."""
    config = context.config
    args = {"max_side": config.images.max_side, **config.refinement.model_dump(exclude={"gate"})}
    return Step(stage=RefineMasks, args=args, **cpu_pool(context))


def gate_masks_step(context: Context, *, classifier: str, keep_better: bool) -> Step:
    """Judges masks before and after their refinement."""
    config = context.config
    args = {
        "checkpoint": classifier,
        "precision": config.precision,
        "max_side": config.images.max_side,
        "keep_better": keep_better,
    }
    return network_step(context, GateMasks, args)


def masks_settings(config: RunConfig) -> dict[str, Any]:
    """What masks depend on, beside their inputs. A gate of the run shows in what it has switched off."""
    gate = {"gate": "image"} if config.refinement.gate == "image" else {}
    return {
        "images": config.images.model_dump(),
        "cams": config.cams.model_dump(),
        "precision": config.precision,
        "mode": config.inference.mode,
        "walk": config.walk.model_dump() | {"radius": config.affinity.radius},
        "refinement": config.refinement.model_dump(exclude={"gate"}) | gate,
    }


def masks_stream(context: Context, *, classifier_digest: str, affinity_digest: str | None) -> Stream:
    """Where the masks go."""
    config = context.config
    record = Record(
        stage="masks",
        config=masks_settings(config),
        inputs={
            "classifier": classifier_digest,
            "affinity": affinity_digest or "none",
            "manifest": context.inputs_digest(context.rows(config.splits.masks)),
        },
    )
    return stream_of(context, record, MASKS)


def run_masks(
    context: Context,
    *,
    classifier: str,
    classifier_digest: str,
    affinity: str | None,
    affinity_digest: str | None,
    seeds: str | None,
) -> tuple[str, StreamSummary]:
    """Computes the masks that aren't there yet.

    Args:
        context: config and manifest.
        classifier: the checkpoint's URI, and its digest.
        classifier_digest: see `classifier`.
        affinity: the AffinityNet's URI, and its digest; None with `walk.affinity=rgb`.
        affinity_digest: see `affinity`.
        seeds: folder of seeds of the SAME classifier and config; their maps aren't computed again. The masks are the
            same with and without.

    Returns:
        The folder's URI and what was done.
    """
    stream = masks_stream(context, classifier_digest=classifier_digest, affinity_digest=affinity_digest)
    rows = context.rows(context.config.splits.masks)
    parts = parts_by_cams(rows, seeds, partial(masks_steps, context, classifier=classifier, affinity=affinity))
    return stream.folder, run_stream(stream, *parts)


def parts_by_cams(rows: pa.Table, seeds: str | None, steps: Callable[..., list[Step]]) -> list[Part]:
    """The rows whose maps a folder of seeds holds, and those whose maps have to be computed.

    Args:
        rows: of the manifest.
        seeds: the folder's URI; None where there is none.
        steps: `reuse_cams` to the stages.
    """
    if seeds is None:
        return [Part(rows, steps(reuse_cams=False))]
    seeded, others = with_shards(rows, seeds)
    return [Part(seeded, steps(reuse_cams=True)), Part(others, steps(reuse_cams=False))]
