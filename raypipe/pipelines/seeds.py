"""Seeds: class activation maps of every image, trimaps of those that the AffinityNet is trained on."""

import os
from collections.abc import Mapping
from typing import Any

from raypipe.formats.cams.read import read_cams_digest
from raypipe.pipelines.context import Context, cluster_address, stream_of
from raypipe.schema import SEEDS
from raypipe.stages.batching import JointStage
from raypipe.stages.cams import ComputeCams
from raypipe.stages.decode import DecodeImages
from raypipe.stages.given_cams import LoadGivenCams
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.streams.plan import Step
from raypipe.streams.records import Record
from raypipe.streams.run import Part, Stream, StreamSummary, run_stream

ROWS_PER_CALL = 16
"""Rows among which images of equal size are found, with `inference.mode=throughput`."""

PIXELS_PER_PASS = 8_000_000
"""Pixels that share a pass then, mirror images not counted."""


def seeds_steps(context: Context, *, classifier: str) -> list[Step]:
    """DecodeImages → ComputeCams → MakeTrimaps.

    Args:
        context: config and manifest.
        classifier: the checkpoint's URI.
    """
    config = context.config
    return [
        decode_step(context),
        cams_step(context, classifier=classifier),
        Step(
            stage=MakeTrimaps,
            args={
                "splits": config.splits.train,
                "max_side": config.images.max_side,
                **config.trimaps.model_dump(),
            },
            **cpu_pool(context),
        ),
    ]


def decode_step(context: Context, *, with_labels: bool = True) -> Step:
    """Fetches and checks images; `with_labels` false takes those whose labels nobody knows, too."""
    args = {"classes": context.classes if with_labels else None, "max_side": context.config.images.max_side}
    return Step(stage=DecodeImages, args=args, batch_size=16, **cpu_pool(context))


def cpu_pool(context: Context) -> dict[str, Any]:
    """Actors of a stage that needs no network."""
    cluster = context.config.cluster
    if cluster.cpu_actors is not None:
        return {"num_actors": cluster.cpu_actors}
    # On a cluster Ray Data stops at the CPUs that there are.
    return {"num_actors": 1, "max_actors": 10_000 if cluster_address(cluster) else os.cpu_count() or 1}


def given_cams(context: Context) -> tuple[str, str] | None:
    """Folder and digest of the maps that the config names, None where it names none.

    Raises:
        ValueError: if there are none.
    """
    folder = context.config.checkpoints.cams
    return None if folder is None else (folder, read_cams_digest(folder))


def cams_step(context: Context, *, classifier: str) -> Step:
    """Computes class activation maps on network actors, or takes those that are given."""
    config = context.config
    if config.checkpoints.cams is not None:
        given = {"folder": config.checkpoints.cams, "out_stride": config.cams.out_stride}
        return Step(stage=LoadGivenCams, args=given, batch_size=8, **cpu_pool(context))
    args = {
        "checkpoint": classifier,
        "max_side": config.images.max_side,
        "precision": config.precision,
        **config.cams.model_dump(),
    }
    return network_step(context, ComputeCams, args)


def network_step(context: Context, stage: type[JointStage[Any]], args: Mapping[str, Any]) -> Step:
    """A stage that holds a network, on network actors."""
    cluster = context.config.cluster
    together = context.config.inference.mode == "throughput"
    return Step(
        stage=stage,
        args={**args, "pixels_per_pass": PIXELS_PER_PASS if together else None},
        batch_size=ROWS_PER_CALL if together else 4,
        num_actors=cluster.network_actors,
        max_actors=cluster.max_network_actors,
        num_gpus=cluster.gpus_per_actor,
        num_cpus=cluster.threads_per_actor or max(1, (os.cpu_count() or 1) // cluster.network_actors),
    )


def seeds_stream(context: Context, *, classifier_digest: str) -> Stream:
    """Where the seeds go."""
    config = context.config
    record = Record(
        stage="seeds",
        config={
            "images": config.images.model_dump(),
            "cams": config.cams.model_dump(),
            "precision": config.precision,
            "mode": config.inference.mode,
            "trimaps": config.trimaps.model_dump(),
            "train": config.splits.train,
        },
        inputs={"classifier": classifier_digest, "manifest": context.inputs_digest(context.seed_rows())},
    )
    return stream_of(context, record, SEEDS)


def run_seeds(context: Context, *, classifier: str, classifier_digest: str) -> tuple[str, StreamSummary]:
    """Computes the seeds that aren't there yet.

    Returns:
        The folder's URI and what was done.
    """
    stream = seeds_stream(context, classifier_digest=classifier_digest)
    summary = run_stream(stream, Part(context.seed_rows(), seeds_steps(context, classifier=classifier)))
    return stream.folder, summary
