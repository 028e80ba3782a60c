"""Hours and bytes of the streams on a cluster, before any run, from a timed sample of images.

Stages are timed one after another, without Ray Data, each in a process with the resources of its actor. The forecast of
a stream with N rows is

    N · max( max_s t_s / actors_s ,  Σ_s c_s / cores )

t_s: a row's time in stage s; c_s: the time of all its threads; cores: what the actors share. Growing pools share the
CPUs that no other actor holds in proportion to their time. Starting the actors comes to it once, by the same formula.
Ray Data's own work isn't in it, nor what others do on the machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from raypipe.config import CLASSIFIER, Cluster
from raypipe.data.checkpoints import Task
from raypipe.doctor.stage_timing import RandomNetwork, StageTime, time_stage
from raypipe.pipelines.context import Context
from raypipe.pipelines.masks import masks_steps
from raypipe.pipelines.seeds import seeds_steps
from raypipe.pipelines.train import affinity_task, classifier_task
from raypipe.schema import MASKS, SEEDS
from raypipe.stages.base import with_error_columns
from raypipe.stages.cams import ComputeCams
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams
from raypipe.streams.plan import CALLS_PER_ACTOR, Step, needs
from raypipe.streams.run import rows_per_block

SECONDS = 900
"""How long a stage may take for the sample, the wait for free CPUs included."""

_NETWORKS: dict[type, Task] = {
    ComputeCams: "classifier",
    GateMasks: "classifier",
    GateWalk: "affinity",
    PropagateCams: "affinity",
}


class SampleFailed(RuntimeError):  # noqa: N818 - says what happened
    """The sample couldn't be run."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A timed sample of the manifest."""

    num_images: int
    quarantined: dict[str, str]
    """Rows that would be quarantined, by image_id, and why."""
    largest: tuple[int, int]
    """Width and height of the largest image."""
    image_bytes: float
    """Of a file, on average."""
    random: list[Task]
    """Networks that aren't trained yet: they ran with random weights."""
    times: dict[str, StageTime]
    """By stage."""
    output_bytes: dict[str, float]
    """Of a row in a shard of seeds or masks, compressed."""


@dataclass(frozen=True, kw_only=True)
class StageForecast:
    """One stage of a stream."""

    name: str
    actors: int
    time: StageTime | None
    """None where it wasn't timed."""
    num_gpus: float
    """Of an actor."""


@dataclass(frozen=True, kw_only=True)
class StreamForecast:
    """A stream on the whole manifest."""

    name: str
    num_rows: int
    stages: list[StageForecast]
    hours: float
    """Once its actors have started."""
    start_seconds: float
    """Until they have, at least: Ray starts processes of its own, too."""
    bottleneck: str
    cpu_hours: float
    """Of work, all threads together."""
    gpu_hours: float
    """That GPUs are held."""
    read_bytes: float
    """Of images."""
    output_bytes: float
    in_flight_bytes: float
    """In Ray's object store: two batches an actor, and two shards that are gathered."""


def evenly_spaced_rows(rows: pa.Table, number: int) -> pa.Table:
    """Rows spread evenly over a table: the middle of each of `number` equal parts."""
    number = min(number, rows.num_rows)
    return rows.take([(2 * index + 1) * rows.num_rows // (2 * number) for index in range(number)])


def makes_seeds(context: Context) -> bool:
    """True where a run computes seeds, whose maps its masks take up: an AffinityNet is to be trained."""
    return context.config.walk.affinity == "learned" and context.config.checkpoints.affinity is None


def uses_classifier(context: Context) -> bool:
    """True where a run needs a classifier: for its maps, unless they are given, or to start an AffinityNet from it."""
    config = context.config
    return config.checkpoints.cams is None or (makes_seeds(context) and config.affinity.weights == CLASSIFIER)


def trains_classifier(context: Context) -> bool:
    """True where a run trains a classifier."""
    return uses_classifier(context) and context.config.checkpoints.classifier is None


def trains(context: Context) -> bool:
    """True where a run trains a network."""
    return trains_classifier(context) or makes_seeds(context)


def stream_steps(context: Context, *, reuse_cams: bool) -> dict[str, list[Step]]:
    """The steps of both streams; networks that aren't trained yet have an empty URI.

    Args:
        context: config and manifest.
        reuse_cams: the masks take up the seeds' maps.
    """
    given = context.config.checkpoints
    classifier, affinity = given.classifier or "", given.affinity or ""
    return {
        "seeds": seeds_steps(context, classifier=classifier),
        "masks": masks_steps(
            context,
            classifier=classifier,
            affinity=None if context.config.walk.affinity == "rgb" else affinity,
            reuse_cams=reuse_cams,
        ),
    }


def time_sample(context: Context, rows: pa.Table) -> Sample:
    """Runs the stages of both streams on rows and takes their times.

    Raises:
        SampleFailed: if a stage fails as a whole or gets no resources.
    """
    networks: dict[Task, RandomNetwork] = {}
    if trains_classifier(context):
        networks["classifier"] = RandomNetwork(classifier_task(context), context.classes)
    if makes_seeds(context):
        networks["affinity"] = RandomNetwork(affinity_task(context, classifier=""), context.classes)
    times: dict[str, StageTime] = {}

    def run(steps: Sequence[Step], table: pa.Table) -> pa.Table:
        for step in steps:
            task = _NETWORKS.get(step.stage)
            table, times[step.stage.__name__] = _time(step, table, networks.get(task) if task else None)
        return table

    rows = with_error_columns(rows)
    steps = stream_steps(context, reuse_cams=False)
    decode, cams, trimaps = steps["seeds"]
    decoded = run([decode], rows)
    mapped = run([cams], decoded)
    seeds = run([trimaps], mapped)
    masks = run(steps["masks"][2:], mapped)
    failed = [row for row in [*seeds.to_pylist(), *masks.to_pylist()] if row["error_stage"] is not None]
    good = decoded.filter(pc.is_null(decoded["error_stage"]))
    sizes = zip(good["original_width"].to_pylist(), good["original_height"].to_pylist(), strict=True)
    return Sample(
        num_images=rows.num_rows,
        quarantined={row["image_id"]: f"{row['error_stage']}: {row['error_reason']}" for row in failed},
        largest=max(sizes, key=lambda size: size[0] * size[1], default=(0, 0)),
        image_bytes=sum(len(image) for image in good["image"].to_pylist()) / max(1, good.num_rows),
        random=sorted(networks),
        times=times,
        output_bytes={"seeds": _shard_bytes(seeds, SEEDS), "masks": _shard_bytes(masks, MASKS)},
    )


def _time(step: Step, table: pa.Table, network: RandomNetwork | None) -> tuple[pa.Table, StageTime]:
    # A fresh process for each stage: its peak of memory is its own, and its threads are those of a real actor.
    remote: Any = ray.remote(num_cpus=step.num_cpus, num_gpus=step.num_gpus, max_calls=1, max_retries=0)
    ref = remote(time_stage).remote(step.stage, dict(step.args), table, batch_size=step.batch_size, network=network)
    name = step.stage.__name__
    try:
        found: tuple[pa.Table, StageTime] = ray.get(ref, timeout=SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(ref, force=True)
        raise SampleFailed(
            f"{name} wasn't done with the sample after {SECONDS} s: the cluster is busy, or the sample too large"
        ) from error
    except ray.exceptions.RayError as error:
        raise SampleFailed(f"{name} failed: {str(error).strip().splitlines()[-1]}") from error
    return found


def forecast(context: Context, sample: Sample, *, cpus: float, cores: float) -> list[StreamForecast]:
    """What both streams take for the whole manifest.

    Args:
        context: config and manifest.
        sample: of the manifest, timed.
        cpus: logical CPUs of the cluster, of which each actor holds some.
        cores: cores that there really are.
    """
    num_rows = {
        "seeds": context.seed_rows().num_rows,
        "masks": context.rows(context.config.splits.masks).num_rows,
    }
    return [
        _forecast_stream(name, steps, sample, context.config.cluster, num_rows=num_rows[name], cpus=cpus, cores=cores)
        for name, steps in stream_steps(context, reuse_cams=makes_seeds(context)).items()
    ]


def _forecast_stream(
    name: str, steps: Sequence[Step], sample: Sample, cluster: Cluster, *, num_rows: int, cpus: float, cores: float
) -> StreamForecast:
    times = [sample.times.get(step.stage.__name__) for step in steps]
    actors = spread_actors(steps, [time.seconds if time else 0.0 for time in times], cpus=cpus)
    held = [time.seconds / count if time else 0.0 for time, count in zip(times, actors, strict=True)]
    worked = [time.cpu_seconds if time else 0.0 for time in times]
    slowest, longest = (max(range(len(steps)), key=values.__getitem__) for values in (held, worked))
    by_pools, by_cores = held[slowest], sum(worked) / cores
    bottleneck = steps[slowest].stage.__name__
    if by_cores > by_pools:
        bottleneck = f"{steps[longest].stage.__name__} (cores that all stages share: {cores:g})"
    hours = max(by_pools, by_cores) * num_rows / 3600
    starts = [time.start_seconds if time else 0.0 for time in times]
    all_starts = sum(count * start for count, start in zip(actors, starts, strict=True))
    block = rows_per_block(num_rows, rows_per_shard=cluster.rows_per_shard)
    waiting = [count * max(step.batch_size, block) for step, count in zip(steps, actors, strict=True)]
    row_bytes = [time.row_bytes if time else 0.0 for time in times]
    in_flight = sum(number * size for number, size in zip(waiting, row_bytes, strict=True))
    return StreamForecast(
        name=name,
        num_rows=num_rows,
        stages=[
            StageForecast(name=step.stage.__name__, actors=count, time=time, num_gpus=step.num_gpus)
            for step, count, time in zip(steps, actors, times, strict=True)
        ],
        hours=hours,
        start_seconds=max(*starts, all_starts / cores),
        bottleneck=bottleneck,
        cpu_hours=sum(worked) * num_rows / 3600,
        gpu_hours=hours * needs(steps)["GPU"],
        read_bytes=sample.image_bytes * num_rows,
        output_bytes=sample.output_bytes[name] * num_rows,
        in_flight_bytes=CALLS_PER_ACTOR * (in_flight + cluster.rows_per_shard * row_bytes[-1]),
    )


def spread_actors(steps: Sequence[Step], seconds: Sequence[float], *, cpus: float) -> list[int]:
    """How many actors each step comes to: growing pools share what is free in proportion to their time."""
    free = max(0.0, cpus - needs(steps)["CPU"])
    growing = [step.max_actors is not None for step in steps]
    total = sum(time for time, grows in zip(seconds, growing, strict=True) if grows) or 1.0
    more = [int(free * time / total / step.num_cpus) for step, time in zip(steps, seconds, strict=True)]
    return [
        step.num_actors if step.max_actors is None else min(step.max_actors, step.num_actors + number)
        for step, number in zip(steps, more, strict=True)
    ]


def _shard_bytes(table: pa.Table, schema: pa.Schema) -> float:
    good = table.filter(pc.is_null(table["error_stage"])).select(schema.names)
    buffer = pa.BufferOutputStream()
    pq.write_table(good, buffer, compression="zstd")
    return float(buffer.getvalue().size / max(1, good.num_rows))
