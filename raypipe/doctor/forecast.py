"""Hours and bytes of the streams on a cluster, before any run, from a timed sample of images.

The stages of a pool are timed one after another, without Ray Data, in a process with the resources of an actor of the
pool. The forecast of a stream with N rows is

    N · max( max_p t_p / actors_p ,  Σ_p c_p / cores )

t_p: a row's time in the stages of pool p; c_p: the time of all their threads; cores: what the actors share. The actors
are those of the plan, all of them. Starting them comes to it once, by the same formula. Decoding that runs ahead of a
network is counted as if it didn't. Ray Data's own work isn't in it, nor what others do on the machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from raypipe.cluster.resources import PoolPlan
from raypipe.data.checkpoints import Task
from raypipe.data.rows import Rows
from raypipe.doctor.stage_timing import PoolTime, RandomNetwork, time_pool
from raypipe.doctor.workload import checkpoint, streams_of, trains_classifier
from raypipe.faults import sentence
from raypipe.pipelines.affinity import affinity_task
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import Context, plan_pools
from raypipe.pipelines.gate import is_labelled, sample_rows
from raypipe.pipelines.needs import needs_affinity
from raypipe.stages.base import ERRORS, with_error_columns
from raypipe.streams.collect import collect, count, with_imported
from raypipe.streams.execute import CALLS_PER_ACTOR
from raypipe.streams.plan import Plan, Pool
from raypipe.streams.run import USUAL_ROWS, rows_per_block
from raypipe.training.tasks import TrainingTask

GATE_IMAGES = 4
"""Of the sample, on which the gate is timed: it takes several times as long as a mask, of few images in all."""

_MOST_PARTS = 8
"""Of the manifest that a sample is drawn of."""

SECONDS = 1800
"""How long a pool may take for the sample, the wait for free CPUs included."""


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
    times: dict[str, list[PoolTime]]
    """Of each stream's pools, in order."""
    output_bytes: dict[str, float]
    """Of a row in a shard of each stream, compressed."""


@dataclass(frozen=True, kw_only=True)
class PoolForecast:
    """One pool of a stream."""

    name: str
    """Its stages."""
    actors: int
    cpus: float
    """That an actor reserves."""
    gpus: float
    """That an actor reserves."""
    time: PoolTime


@dataclass(frozen=True, kw_only=True)
class StreamForecast:
    """A stream on the whole manifest."""

    name: str
    num_rows: int
    pools: list[PoolForecast]
    loads_maps: bool
    """Class activation maps come from the seeds, which takes no time worth counting."""
    hours: float
    """Once its actors have started."""
    start_seconds: float
    """Until they have, at least: Ray starts processes of its own, too."""
    bottleneck: str
    """The stage that takes longest where it is tightest."""
    cpu_hours: float
    """Of work, all threads together."""
    gpu_hours: float
    """That GPUs are held."""
    read_bytes: float
    """Of images."""
    output_bytes: float
    in_flight_bytes: float
    """In Ray's object store, between two pools."""


def evenly_spaced_rows(rows: Rows, number: int) -> pa.Table:
    """Rows spread evenly over a few parts of the manifest, which are themselves spread evenly."""
    parts = [rows.parts[index] for index in evenly_spaced(len(rows.parts), _MOST_PARTS)]
    table = collect(replace(rows, chosen=tuple(part.name for part in parts)))
    return table.take(pa.array(evenly_spaced(table.num_rows, number), pa.int64()))


def evenly_spaced(length: int, number: int) -> list[int]:
    """The middle of each of `number` equal parts of a range."""
    number = min(number, length)
    return [(2 * index + 1) * length // (2 * number) for index in range(number)]


def forecast_plans(context: Context) -> list[Plan]:
    """The streams that are forecast: seeds and gate, where the run makes some, and masks."""
    return [plan for plan in streams_of(context) if plan.name in ("seeds", "gate", "masks")]


def random_networks(context: Context) -> dict[Task, RandomNetwork]:
    """What stands in for the networks that the run will train and the streams use."""
    config = context.config
    tasks: list[TrainingTask] = []
    if trains_classifier(context):
        tasks.append(classifier_task(context))
    if needs_affinity(config):  # a frozen backbone takes about as long
        tasks.append(affinity_task(context, classifier=checkpoint(config, "classifier")))
    return {task.name: RandomNetwork(task, config.training(task.name), context.classes) for task in tasks}


def time_sample(context: Context, rows: pa.Table) -> Sample:
    """Runs the pools of the streams on rows and takes their times.

    Args:
        context: config and manifest.
        rows: of `context.seed_rows`.

    Raises:
        SampleFailed: if a pool fails as a whole or gets no resources.
        DoesNotFit: if the machine is too small for a stream.
    """
    networks = random_networks(context)
    times: dict[str, list[PoolTime]] = {}
    output_bytes: dict[str, float] = {}
    failed: dict[str, str] = {}
    table = with_error_columns(rows)
    for plan in forecast_plans(context):
        pools, resources = plan_pools(plan, context.machine, context.config)
        all_rows = table
        if plan.name == "gate":
            table = table.filter(is_labelled(table)).slice(0, GATE_IMAGES)
        table = with_imported(table, plan)
        times[plan.name] = []
        for pool, of_pool in zip(pools, resources.pools, strict=True):
            table, taken = _time(context, pool, of_pool, table, networks)
            times[plan.name].append(taken)
        output_bytes[plan.name] = _shard_bytes(table, plan.schema)
        bad = table.filter(pc.is_valid(table["error_stage"])).select(["image_id", *ERRORS.names]).to_pylist()
        failed |= {row["image_id"]: sentence(row["error_reason"]) for row in bad}
        if plan.name == "gate":
            table = all_rows
        if plan.name == "seeds":  # the next streams' rows are the manifest's with the seeds' maps
            table = table.select([*rows.column_names, "cam", "cam_height", "cam_width", *ERRORS.names])
    good = table.filter(pc.is_null(table["error_stage"]))
    sizes = zip(good["width"].to_pylist(), good["height"].to_pylist(), strict=True)
    return Sample(
        num_images=rows.num_rows,
        quarantined=failed,
        largest=max(sizes, key=lambda size: size[0] * size[1], default=(0, 0)),
        image_bytes=(pc.sum(pc.binary_length(good["image"])).as_py() or 0) / max(1, good.num_rows),
        random=sorted(networks),
        times=times,
        output_bytes=output_bytes,
    )


def _time(
    context: Context, pool: Pool, resources: PoolPlan, table: pa.Table, networks: dict[Task, RandomNetwork]
) -> tuple[pa.Table, PoolTime]:
    # A fresh process for each pool: its peak of memory is its own, and its threads are those of a real actor.
    remote: Any = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_calls=1, max_retries=0)
    ref = remote(time_pool).remote(
        pool,
        resources,
        table,
        networks={checkpoint(context.config, task).uri: network for task, network in networks.items()},
        rows_per_call=context.config.cluster.rows_per_block or USUAL_ROWS,
    )
    try:
        found: tuple[pa.Table, PoolTime] = ray.get(ref, timeout=SECONDS)
    except ray.exceptions.GetTimeoutError as error:
        ray.cancel(ref, force=True)
        raise SampleFailed(
            f"{pool.name} wasn't done with the sample after {SECONDS} s: the cluster is busy, or the sample too large"
        ) from error
    except ray.exceptions.RayError as error:
        raise SampleFailed(f"{pool.name} failed: {str(error).strip().splitlines()[-1]}") from error
    return found


def forecast(context: Context, sample: Sample, *, cores: float) -> list[StreamForecast]:
    """What the streams take for the whole manifest.

    Args:
        context: config and manifest.
        sample: of the manifest, timed.
        cores: cores that there really are.
    """
    rows = {
        "seeds": count(context.seed_rows()),
        "gate": count(sample_rows(context)),
        "masks": count(context.rows(context.config.splits.masks)),
    }
    return [_forecast_stream(context, plan, rows[plan.name], sample, cores=cores) for plan in forecast_plans(context)]


def _forecast_stream(context: Context, plan: Plan, num_rows: int, sample: Sample, *, cores: float) -> StreamForecast:
    _, resources = plan_pools(plan, context.machine, context.config)
    pools = [
        PoolForecast(name=of_pool.name, actors=of_pool.max_actors, cpus=of_pool.cpus, gpus=of_pool.gpus, time=time)
        for of_pool, time in zip(resources.pools, sample.times[plan.name], strict=True)
    ]
    slowest = max(pools, key=lambda pool: pool.time.seconds / pool.actors)
    by_pools = slowest.time.seconds / slowest.actors
    bottleneck = max(slowest.time.stages, key=lambda stage: stage.seconds).name
    worked = sum(pool.time.cpu_seconds for pool in pools)
    by_cores = worked / cores
    if by_cores > by_pools:
        longest = max((stage for pool in pools for stage in pool.time.stages), key=lambda stage: stage.cpu_seconds)
        bottleneck = f"{longest.name} (cores that all stages share: {cores:g})"
    hours = max(by_pools, by_cores) * num_rows / 3600
    starts = [pool.time.start_seconds for pool in pools]
    return StreamForecast(
        name=plan.name,
        num_rows=num_rows,
        pools=pools,
        loads_maps=plan.reuse is not None,
        hours=hours,
        start_seconds=max(*starts, sum(pool.actors * pool.time.start_seconds for pool in pools) / cores),
        bottleneck=bottleneck,
        cpu_hours=worked * num_rows / 3600,
        gpu_hours=hours * sum(pool.actors * pool.gpus for pool in pools),
        read_bytes=sample.image_bytes * num_rows,
        output_bytes=sample.output_bytes[plan.name] * num_rows,
        in_flight_bytes=_between_pools(context, pools, num_rows),
    )


def _between_pools(context: Context, pools: Sequence[PoolForecast], num_rows: int) -> float:
    """Bytes that pools hand on at a time: what one pool has made, and what the next one works on."""
    block = context.config.cluster.rows_per_block or rows_per_block(num_rows)
    return sum(
        CALLS_PER_ACTOR * (pool.actors + following.actors) * block * pool.time.row_bytes
        for pool, following in pairwise(pools)  # the last one writes shards
    )


def _shard_bytes(table: pa.Table, schema: pa.Schema) -> float:
    good = table.filter(pc.is_null(table["error_stage"])).select(schema.names)
    buffer = pa.BufferOutputStream()
    pq.write_table(good, buffer, compression="zstd")
    return float(buffer.getvalue().size / max(1, good.num_rows))
