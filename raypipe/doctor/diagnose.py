"""Looks a config and its cluster over before a run, and says how long the run will take."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import ray

from raypipe.cluster.agreement import check_alike, places_of
from raypipe.cluster.connect import connect
from raypipe.cluster.findings import Finding, problem, size_text, time_text, to_text
from raypipe.cluster.survey import Node, View, find_gpus, survey
from raypipe.config import RunConfig
from raypipe.doctor import cluster_checks, data_checks, memory_checks
from raypipe.doctor.first_look import look_at_images, look_at_masks
from raypipe.doctor.fit import check_fit
from raypipe.doctor.forecast import (
    PoolForecast,
    Sample,
    SampleFailed,
    StreamForecast,
    evenly_spaced_rows,
    forecast,
    time_sample,
)
from raypipe.doctor.package_checks import check_packages, packages_of
from raypipe.doctor.photographs import read_photographs
from raypipe.doctor.training_forecast import TrainingForecast, forecast_trainings
from raypipe.pipelines.context import Context, open_context

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, and a forecast where nothing stands against one."""

    findings: list[Finding]
    sample: Sample | None = None
    streams: list[StreamForecast] = field(default_factory=list)
    trainings: list[TrainingForecast] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """True where no check found a problem; warnings don't count."""
        return all(finding.status != "problem" for finding in self.findings)

    def __str__(self) -> str:
        parts = [to_text(self.findings)]
        if self.sample is None:
            parts.append("no forecast: mend the problems first")
        else:
            parts += _forecast_text(self.sample, self.streams, self.trainings)
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """The same for programs."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}, indent=1)


def diagnose(config: RunConfig, *, num_images: int = 16, seeds: str | None = None) -> Diagnosis:
    """Checks storage, networks, cluster and images, then times a sample of images for a forecast.

    Nothing is left behind: probes are deleted, and no output is written.

    Args:
        config: of the run.
        num_images: how many images are read and timed.
        seeds: as of `open_context`.
    """
    try:
        context = open_context(config, seeds=seeds)
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and all of them are findings
        found = f"{type(error).__name__}: {error}"
        way_out = "mend `manifest`; `raypipe import` writes one"
        return Diagnosis(findings=[problem("manifest", found, needed="a manifest that can be read", way_out=way_out)])
    findings = [data_checks.check_manifest(context)]
    if findings[0].status == "problem":
        return Diagnosis(findings=findings)
    # Large scenes, which are read by windows, are no photographs: of those the beginnings are looked at.
    findings.append(look_at_images(context) if context.config.images.by_windows else read_photographs(context))
    findings += look_at_masks(context)
    try:
        connect(context.config.cluster)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        no_ray = problem(
            "nodes",
            f"no Ray: {error}",
            needed="a cluster that runs, reached from one of its machines",
            way_out="mend cluster.address or RAY_ADDRESS; null starts a local Ray",
        )
        return Diagnosis(findings=[*findings, no_ray])
    rows = evenly_spaced_rows(context.seed_rows(), num_images)
    image_uris = [uri for uri in rows["image_uri"].to_pylist() if uri]
    logger.info("looking at storage, images and versions from every node")
    driver, nodes = survey(
        out=context.config.out,
        image_uris=image_uris,
        files=data_checks.network_files(context),
        packages=list(packages_of(context)),
    )
    places = places_of(driver, nodes)
    allowed_share = data_checks.allowed_share(context)
    findings += [
        data_checks.check_networks(context, places),
        data_checks.check_images(places, num_sampled=len(set(image_uris)), allowed_share=allowed_share),
        *check_alike(context.config.out, driver, nodes),
        *check_packages(context, {place: view.lacking for place, view in places.items()}),
        *_check_cluster(context, nodes),
    ]
    if not Diagnosis(findings=findings).healthy:
        return Diagnosis(findings=findings)
    return _with_forecast(context, rows, nodes, findings)


def _check_cluster(context: Context, nodes: Sequence[Node]) -> Iterator[Finding]:
    yield from check_fit(context)
    cluster = context.config.cluster
    if context.machine.gpus and (cluster.gpus_per_actor != 0 or cluster.gpus_per_train_worker != 0):
        yield cluster_checks.check_cuda(find_gpus())
    yield cluster_checks.check_disk(nodes)
    yield cluster_checks.check_authentication(
        ray.get_runtime_context().gcs_address, os.environ.get("RAY_AUTH_MODE", "").lower() or None
    )


def _with_forecast(context: Context, rows: pa.Table, nodes: Sequence[Node], findings: list[Finding]) -> Diagnosis:
    try:
        sample = time_sample(context, rows)
        trainings = forecast_trainings(context)
    except SampleFailed as error:
        failed = problem(
            "sample",
            str(error),
            needed=f"{rows.num_rows} images that go through all stages, and a step of each training",
            way_out="what the message says; `raypipe describe` prints what each stage asks for",
        )
        return Diagnosis(findings=[*findings, failed])
    streams = forecast(context, sample, cores=_cores(context, nodes))
    findings = [
        *findings,
        data_checks.check_sample(sample, allowed_share=data_checks.allowed_share(context)),
        memory_checks.check_memory(sample, streams, nodes, context.machine, max_side=context.config.images.max_side),
        memory_checks.check_object_store(streams, nodes),
    ]
    if any(pool.gpus for stream in streams for pool in stream.pools):
        findings.append(memory_checks.check_gpu_memory(streams, find_gpus()))
    return Diagnosis(findings=findings, sample=sample, streams=streams, trainings=trainings)


def _cores(context: Context, nodes: Sequence[Node]) -> float:
    """Cores that there really are; of nodes that an autoscaler may bring, those that Ray will count."""
    if context.config.cluster.autoscaling:
        return context.machine.cpus
    seen = [(node, node.view) for node in nodes if isinstance(node.view, View)]
    return max(1, sum(min(node.resources.get("CPU", 0), view.cores) for node, view in seen))


def _forecast_text(
    sample: Sample, streams: Sequence[StreamForecast], trainings: Sequence[TrainingForecast]
) -> Iterator[str]:
    hours = sum(stream.hours for stream in streams) + sum(training.hours for training in trainings)
    yield f"A run takes about {time_text(hours)}, if nothing else keeps the machines busy:"
    yield from map(_training_text, trainings)
    text = f"Forecast from {sample.num_images} images, timed one stage at a time"
    if sample.random:
        text += f", {' and '.join(sample.random)} with random weights: time doesn't depend on them, bytes do a little"
    yield f"{text}. Ray Data's own work isn't in it, nor loading and validation beside the trainings."
    yield from map(_stream_text, streams)


def _training_text(training: TrainingForecast) -> str:
    rounds = f", {training.rounds} times" if training.rounds > 1 else ""
    shared = f" that {training.workers} workers share" if training.workers > 1 else ""
    return (
        f"{training.name}: about {time_text(training.hours)} for {training.num_steps:,} steps of {training.batch_size} "
        f"images{shared}, {1000 * training.step_seconds:,.0f} ms each ({training.epochs} epochs of "
        f"{training.num_images:,} images{rounds})"
    )


def _stream_text(stream: StreamForecast) -> str:
    gpu_hours = f", {time_text(stream.gpu_hours)} of GPUs" if stream.gpu_hours else ""
    lines = [
        f"{stream.name}: about {time_text(stream.hours)} for {stream.num_rows:,} images, after at least "
        f"{stream.start_seconds:.0f} seconds to start; bottleneck: {stream.bottleneck}",
        f"  about {time_text(stream.cpu_hours)} of CPU work{gpu_hours}; reads about "
        f"{size_text(stream.read_bytes)} of images, writes about {size_text(stream.output_bytes)}; at most about "
        f"{size_text(stream.in_flight_bytes)} in the object store",
    ]
    if stream.loads_maps:
        lines.append("  class activation maps come from the seeds; reading them isn't timed")
    for pool in stream.pools:
        lines += _pool_lines(pool)
    return "\n".join(lines)


def _pool_lines(pool: PoolForecast) -> Iterator[str]:
    gpus = f" and {pool.gpus:g} GPUs" if pool.gpus else ""
    yield (
        f"  {pool.actors} actors with {pool.cpus:g} CPUs{gpus} each: {1000 * pool.time.seconds:,.1f} ms an image, "
        f"{size_text(pool.time.memory)} of memory an actor, {size_text(pool.time.row_bytes)} a row after it"
    )
    width = max(len(stage.name) for stage in pool.time.stages)
    for stage in pool.time.stages:
        yield f"    {stage.name:{width}}  {1000 * stage.seconds:,.1f} ms"
