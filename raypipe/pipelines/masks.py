"""Masks: class activation maps, walked along affinities, refined, encoded."""

from collections.abc import Callable
from functools import partial

import pyarrow as pa

from raypipe.pipelines.context import Context, with_shards
from raypipe.pipelines.graph import Step
from raypipe.pipelines.records import Record
from raypipe.pipelines.seeds import cams_step, cpu_pool, decode_step, network_step
from raypipe.pipelines.stream import Part, Stream, StreamSummary, run_stream
from raypipe.schema import MASKS
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.load import LoadCams
from raypipe.stages.propagate import PropagateCams
from raypipe.stages.refine import RefineMasks


def masks_steps(context: Context, *, classifier: str, affinity: str | None, reuse_cams: bool) -> list[Step]:
    """DecodeImages → ComputeCams (or LoadCams) → PropagateCams → RefineMasks → EncodeMasks.

    Args:
        context: config and manifest.
        classifier: the checkpoint's URI.
        affinity: the AffinityNet's; None with `walk.affinity=rgb`.
        reuse_cams: takes the maps from seed shards; the rows must have a `shard_uri`.
    """
    config = context.config
    max_side = config.images.max_side
    return [
        decode_step(context),
        Step(stage=LoadCams, batch_size=8) if reuse_cams else cams_step(context, classifier=classifier),
        network_step(
            context,
            PropagateCams,
            {
                "checkpoint": affinity,
                "cam_stride": config.cams.out_stride,
                "max_side": max_side,
                **config.walk.model_dump(),
                "radius": config.walk_radius,
            },
        ),
        Step(
            stage=RefineMasks,
            args={"max_side": max_side, **config.refinement.model_dump()},
            **cpu_pool(context),
        ),
        Step(stage=EncodeMasks, batch_size=8, **cpu_pool(context)),
    ]


def masks_stream(context: Context, *, classifier_digest: str, affinity_digest: str | None) -> Stream:
    """Where the masks go."""
    config = context.config
    record = Record(
        stage="masks",
        config={
            "images": config.images.model_dump(),
            "cams": config.cams.model_dump(),
            "mode": config.inference.mode,
            "walk": config.walk.model_dump() | {"radius": config.walk_radius},
            "refinement": config.refinement.model_dump(),
            "png": config.png,
        },
        inputs={
            "classifier": classifier_digest,
            "affinity": affinity_digest or "none",
            "manifest": context.inputs_digest(context.rows(config.splits.masks)),
        },
    )
    return Stream(
        record=record,
        out=config.out,
        schema=MASKS,
        classes=context.classes,
        budget=config.budget,
        rows_per_shard=config.cluster.rows_per_shard,
        autoscaling=config.cluster.autoscaling,
        png_column="mask" if config.png else None,
    )


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
