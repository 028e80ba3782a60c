"""Looks a config and its cluster over before a run, and says how long the run will take."""

import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import ray

from raypipe.config import RunConfig
from raypipe.doctor import cluster_checks, data_checks
from raypipe.doctor.findings import Finding, columns, size_text, time_text, to_text
from raypipe.doctor.forecast import (
    Sample,
    SampleFailed,
    StreamForecast,
    evenly_spaced_rows,
    forecast,
    stream_steps,
    time_sample,
    trains,
)
from raypipe.doctor.survey import Node, find_gpus, survey
from raypipe.pipelines.context import Context, open_context, start_ray
from raypipe.streams.plan import needs

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """All findings, and a forecast where nothing stands against one."""

    findings: list[Finding]
    sample: Sample | None = None
    streams: list[StreamForecast] = field(default_factory=list)

    @property
    def healthy(self) -> bool:
        """True where no check found a problem; warnings don't count."""
        return all(finding.status != "problem" for finding in self.findings)

    def __str__(self) -> str:
        parts = [to_text(self.findings)]
        if self.sample is None:
            parts.append("no forecast: mend the problems first")
        else:
            parts += _forecast_text(self.sample, self.streams)
        return "\n\n".join(parts)

    def to_json(self) -> str:
        """The same for programs."""
        return json.dumps({"healthy": self.healthy, **asdict(self)}, indent=1)


def diagnose(config: RunConfig, *, num_images: int = 16) -> Diagnosis:
    """Checks storage, networks, cluster and images, then times a sample of images for a forecast.

    Nothing is left behind: probes are deleted, and no output is written.

    Args:
        config: of the run.
        num_images: how many images are read and timed.
    """
    try:
        context = open_context(config)
    except Exception as error:  # noqa: BLE001 - each storage has errors of its own, and all of them are findings
        found = Finding(
            check="manifest",
            status="problem",
            found=f"{type(error).__name__}: {error}",
            needed="a manifest that can be read",
            way_out="mend `manifest`; `raypipe import` writes one",
        )
        return Diagnosis(findings=[found])
    findings = [data_checks.check_manifest(context)]
    if findings[0].status == "problem":
        return Diagnosis(findings=findings)
    try:
        start_ray(context.config.cluster)
    except (ConnectionError, RuntimeError, ray.exceptions.RayError) as error:
        found = Finding(
            check="nodes",
            status="problem",
            found=f"no Ray: {error}",
            needed="a cluster that runs, reached from one of its machines",
            way_out="mend cluster.address or RAY_ADDRESS; null starts a local Ray",
        )
        return Diagnosis(findings=[*findings, found])
    rows = evenly_spaced_rows(context.seed_rows(), num_images)
    image_uris = [uri for uri in rows["image_uri"].to_pylist() if uri]
    logger.info("looking at storage, images and versions from every node")
    driver, nodes = survey(out=context.config.out, image_uris=image_uris, files=data_checks.network_files(context))
    places = {"the driver": driver} | {node.name: node.view for node in nodes if not isinstance(node.view, str)}
    findings += [
        data_checks.check_networks(context, places),
        data_checks.check_out(context.config.out, places),
        data_checks.check_images(
            places, num_sampled=len(set(image_uris)), allowed_share=data_checks.allowed_share(context)
        ),
        *_check_cluster(context, places, nodes),
    ]
    if not Diagnosis(findings=findings).healthy:
        return Diagnosis(findings=findings)
    return _with_forecast(context, rows, nodes, findings)


def _check_cluster(context: Context, places: dict[str, Any], nodes: Sequence[Node]) -> Iterator[Finding]:
    cluster, streams = context.config.cluster, stream_steps(context, reuse_cams=False)
    threads = cluster.threads_per_actor or max(1, (os.cpu_count() or 1) // cluster.train_workers)
    yield cluster_checks.check_nodes(nodes)
    yield cluster_checks.check_versions(places)
    kinds: tuple[Literal["CPU", "GPU"], ...] = ("CPU", "GPU")
    for kind in kinds:
        wanted = {name: needs(steps)[kind] for name, steps in streams.items()}
        if trains(context):
            wanted["training"] = cluster_checks.training_needs(cluster, threads=threads)[kind]
        yield cluster_checks.check_resources(kind, wanted, nodes, autoscaling=cluster.autoscaling)
    yield cluster_checks.check_actors_fit(streams, nodes, autoscaling=cluster.autoscaling)
    if cluster.gpus_per_actor or cluster.gpus_per_train_worker:
        yield cluster_checks.check_cuda(find_gpus())
    yield cluster_checks.check_disk(nodes)
    yield cluster_checks.check_authentication(
        ray.get_runtime_context().gcs_address, os.environ.get("RAY_AUTH_MODE", "").lower() or None
    )


def _with_forecast(context: Context, rows: Any, nodes: Sequence[Node], findings: list[Finding]) -> Diagnosis:
    cpus = {node.name: node.resources.get("CPU", 0) for node in nodes}
    cores = sum(min(cpus[node.name], node.view.cores) for node in nodes if not isinstance(node.view, str))
    try:
        sample = time_sample(context, rows)
    except SampleFailed as error:
        found = Finding(
            check="sample",
            status="problem",
            found=str(error),
            needed=f"{rows.num_rows} images that go through all stages",
            way_out="what the message says; `raypipe describe` prints what each stage asks for",
        )
        return Diagnosis(findings=[*findings, found])
    # An autoscaler brings what a stream holds, but no more.
    asked = max(needs(steps)["CPU"] for steps in stream_steps(context, reuse_cams=False).values())
    coming = asked if context.config.cluster.autoscaling else 1
    streams = forecast(context, sample, cpus=max(coming, sum(cpus.values())), cores=max(coming, cores))
    findings = [
        *findings,
        data_checks.check_sample(sample, allowed_share=data_checks.allowed_share(context)),
        cluster_checks.check_memory(sample, streams, nodes, max_side=context.config.images.max_side),
        cluster_checks.check_object_store(streams, nodes),
    ]
    if context.config.cluster.gpus_per_actor:
        findings.append(cluster_checks.check_gpu_memory(streams, find_gpus()))
    return Diagnosis(findings=findings, sample=sample, streams=streams)


def _forecast_text(sample: Sample, streams: Sequence[StreamForecast]) -> Iterator[str]:
    text = f"Forecast from {sample.num_images} images, timed one stage at a time"
    if sample.random:
        text += f", {' and '.join(sample.random)} with random weights: time doesn't depend on them, bytes do a little"
    yield f"{text}. Trainings, Ray Data's own work and what else the machines do aren't in it."
    for stream in streams:
        yield _stream_text(stream)


def _stream_text(stream: StreamForecast) -> str:
    rows = [("stage", "actors", "ms an image", "bytes a row after it", "memory of an actor")]
    for stage in stream.stages:
        cells = ("not timed: reads the seeds' maps", "", "")
        if stage.time is not None:
            cells = (
                f"{1000 * stage.time.seconds:,.1f}",
                size_text(stage.time.row_bytes),
                size_text(stage.time.memory),
            )
        rows.append((stage.name, str(stage.actors), *cells))
    gpu_hours = f", {time_text(stream.gpu_hours)} of GPUs" if stream.gpu_hours else ""
    return "\n".join(
        [
            f"{stream.name}: about {time_text(stream.hours)} for {stream.num_rows:,} images, after at least "
            f"{stream.start_seconds:.0f} seconds to start; bottleneck: {stream.bottleneck}",
            f"  about {time_text(stream.cpu_hours)} of CPU work{gpu_hours}; reads about "
            f"{size_text(stream.read_bytes)} of images, writes about {size_text(stream.output_bytes)}; at most about "
            f"{size_text(stream.in_flight_bytes)} in the object store",
            *(f"  {line}" for line in columns(rows).splitlines()),
        ]
    )
