"""Checks of the cluster: nodes, versions, CPUs, GPUs, memory, disk, token. Each goes from facts to a finding."""

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, requires
from typing import Literal

from packaging.requirements import Requirement

from raypipe.config import Cluster
from raypipe.data.images import reduced_size
from raypipe.doctor.findings import Finding, from_places, size_text
from raypipe.doctor.forecast import Sample, StreamForecast
from raypipe.doctor.survey import Gpu, Node, View
from raypipe.pipelines.train import LOADER_ACTORS
from raypipe.streams.plan import ROOM, Step

FULLEST_DISK = 0.95
"""Ray stops spilling to a disk that is fuller."""

OBJECT_STORE_SHARE = 0.5
"""Ray Data's share of the object store."""


def check_nodes(nodes: Sequence[Node]) -> Finding:
    """Each node can run a task."""
    mute = {node.name: node.view for node in nodes if isinstance(node.view, str)}
    if mute:
        return Finding(
            check="nodes",
            status="problem",
            found=from_places(mute),
            needed=f"{len(nodes)} nodes that run tasks of this raypipe",
            way_out="install the same raypipe on all of them (one image), or take these nodes out",
        )
    cpus, gpus = (sum(node.resources.get(kind, 0) for node in nodes) for kind in ("CPU", "GPU"))
    return Finding(check="nodes", status="ok", found=f"{len(nodes)} answer; {cpus:g} CPUs, {gpus:g} GPUs")


def check_versions(places: Mapping[str, View]) -> Finding:
    """Equal versions everywhere, and a Ray that this raypipe works with."""
    problems = []
    for name in ("python", "ray", "raypipe", "torch"):
        found = {place: view.versions[name] for place, view in places.items()}
        if len(set(found.values())) > 1:
            problems.append(f"{name} {from_places(found)}")
    wanted, ours = _wanted_ray(), next(iter(places.values())).versions
    if wanted is not None and not wanted.specifier.contains(ours["ray"], prereleases=True):
        problems.append(f"ray {ours['ray']}")
    if problems:
        return Finding(
            check="versions",
            status="problem",
            found="; ".join(problems),
            needed=f"the same versions everywhere, and {wanted or 'ray'}",
            way_out="one image for all nodes, made with constraints.txt",
        )
    return Finding(check="versions", status="ok", found=", ".join(f"{name} {ours[name]}" for name in ours))


def _wanted_ray() -> Requirement | None:
    try:
        wanted = map(Requirement, requires("raypipe-masks") or [])
    except PackageNotFoundError:  # run from a working directory
        return None
    return next((requirement for requirement in wanted if requirement.name == "ray"), None)


def check_resources(
    kind: Literal["CPU", "GPU"], wanted: Mapping[str, float], nodes: Sequence[Node], *, autoscaling: bool
) -> Finding:
    """The cluster has what each stream holds from its start to its end.

    Args:
        kind: of resource.
        wanted: by stream.
        nodes: of the cluster.
        autoscaling: the cluster brings what is missing.
    """
    have = sum(node.resources.get(kind, 0) for node in nodes)
    plan = ", ".join(f"{name} {number:g}" for name, number in wanted.items())
    check = f"{kind}s"
    if max(wanted.values()) > have:
        return Finding(
            check=check,
            status="warning" if autoscaling else "problem",
            found=f"the cluster has {have:g}",
            needed=plan,
            way_out="the autoscaler has to bring them" if autoscaling else ROOM,
        )
    if kind == "GPU" and have and not any(wanted.values()):
        return Finding(
            check=check,
            status="warning",
            found=f"the cluster has {have:g}, and the config uses none",
            needed="nothing: networks would run on CPUs",
            way_out="set cluster.gpus_per_actor and cluster.gpus_per_train_worker",
        )
    return Finding(check=check, status="ok", found=f"{have:g} there; held by {plan}")


def training_needs(cluster: Cluster, *, threads: int) -> dict[str, float]:
    """CPUs and GPUs that a training holds: each worker has a stream of crops beside it."""
    workers = cluster.train_workers or 1
    return {
        "CPU": workers * (threads + LOADER_ACTORS + 1),
        "GPU": workers * (cluster.gpus_per_train_worker or 0),
    }


def check_actors_fit(streams: Mapping[str, Sequence[Step]], nodes: Sequence[Node], *, autoscaling: bool) -> Finding:
    """Each actor finds room on one node: CPUs of several nodes don't add up."""
    homeless = {
        f"{step.stage.__name__} ({step.num_cpus:g} CPUs, {step.num_gpus:g} GPUs)"
        for steps in streams.values()
        for step in steps
        if not any(
            node.resources.get("CPU", 0) >= step.num_cpus and node.resources.get("GPU", 0) >= step.num_gpus
            for node in nodes
        )
    }
    if homeless:
        return Finding(
            check="actors",
            status="warning" if autoscaling else "problem",
            found=f"no node has room for an actor of {', '.join(sorted(homeless))}",
            needed="CPUs and GPUs of an actor on one node",
            way_out="larger nodes, or fewer GPUs an actor (cluster.gpus_per_actor)",
        )
    return Finding(check="actors", status="ok", found="each finds room on a node")


def check_cuda(gpus: Mapping[str, Gpu | str]) -> Finding:
    """Torch sees the GPUs that Ray hands out."""
    blind = {node: gpu for node, gpu in gpus.items() if isinstance(gpu, str)}
    if blind:
        return Finding(
            check="CUDA",
            status="problem",
            found=from_places(blind),
            needed="a build of torch for CUDA, and a driver of the GPU that is new enough for it",
            way_out="see nvidia-smi on these nodes; torch of infra/Dockerfile's image",
        )
    names = sorted({f"{gpu.name}, {size_text(gpu.memory)}" for gpu in gpus.values() if isinstance(gpu, Gpu)})
    return Finding(check="CUDA", status="ok", found="; ".join(names) or "no GPUs")


def check_disk(nodes: Sequence[Node]) -> Finding:
    """Room for what Ray spills. A run that never spills needs none, so it is a warning at worst."""
    lines, enough = [], True
    for node in nodes:
        if isinstance(node.view, str) or node.view.disk is None:
            continue
        total, free = node.view.disk
        room = max(0, free - (1 - FULLEST_DISK) * total)
        lines.append(f"{node.name} {size_text(room)}")
        enough = enough and room > 0 and room >= node.resources.get("object_store_memory", 0)
    found = f"free for spilling: {', '.join(lines) or 'not known'}"
    if enough:
        return Finding(check="disk", status="ok", found=found)
    return Finding(
        check="disk",
        status="warning",
        found=found,
        needed=f"the size of the object store, on a disk less than {100 * FULLEST_DISK:.0f} % full: Ray doesn't "
        "spill to a fuller one, and a run that has to spill then fails",
        way_out="a larger disk, or ray start --object-spilling-directory on another one",
    )


def check_authentication(gcs_address: str, mode: str | None) -> Finding:
    """Who reaches Ray's ports can run code, unless Ray asks for a token."""
    if mode == "token":
        return Finding(check="token", status="ok", found="Ray asks for its token")
    if gcs_address.rpartition(":")[0].strip("[]") in ("127.0.0.1", "localhost", "::1"):
        return Finding(check="token", status="ok", found=f"none, but Ray listens on loopback only ({gcs_address})")
    return Finding(
        check="token",
        status="warning",
        found=f"RAY_AUTH_MODE is {mode or 'not set'}, and Ray listens at {gcs_address}",
        needed="a token: whoever reaches Ray's ports or dashboard can run code",
        way_out="RAY_AUTH_MODE=token on all nodes and here, and `ray get-auth-token --generate`",
    )


def check_memory(sample: Sample, streams: Sequence[StreamForecast], nodes: Sequence[Node], *, max_side: int) -> Finding:
    """Memory of each node against its share of a stream's actors, each at the peak that the sample showed.

    That peak is of the largest image of the sample, its decoding, passes and maps included. Passes and maps grow with
    the pixels that are worked on.
    """
    lines, worst = [], 0.0
    for node in nodes:
        have = node.resources.get("memory", 0)
        need = max(_node_memory(stream, node, nodes) for stream in streams)
        if need and have:
            lines.append(f"{node.name} {size_text(need)} of {size_text(have)} for its actors at their peaks")
            worst = max(worst, need / have)
    width, height = sample.largest
    found = f"{', '.join(lines)}; largest image {width} x {height}"
    worked_width, worked_height = reduced_size(width, height, max_side)
    growth = max_side**2 / max(1, worked_width * worked_height)
    if growth > 2:
        found += f"; passes of one of {max_side} x {max_side} would take up to {growth:.1f} times as much"
    if worst <= 0.8:
        return Finding(check="memory", status="ok", found=found)
    return Finding(
        check="memory",
        status="problem" if worst > 1 else "warning",
        found=found,
        needed="the sum over a node's actors of their stage's peak, below 80 % of what Ray counts as the node's memory",
        way_out="fewer cluster.cpu_actors or cluster.network_actors, larger nodes, or a smaller images.max_side",
    )


def _node_memory(stream: StreamForecast, node: Node, nodes: Sequence[Node]) -> float:
    total = 0.0
    for stage in stream.stages:
        kind = "GPU" if stage.num_gpus else "CPU"
        share = node.resources.get(kind, 0) / (sum(other.resources.get(kind, 0) for other in nodes) or 1)
        total += math.ceil(stage.actors * share) * (stage.time.memory if stage.time else 0)
    return total


def check_gpu_memory(streams: Sequence[StreamForecast], gpus: Mapping[str, Gpu | str]) -> Finding:
    """Peak of each network stage on a GPU against its part of the smallest GPU."""
    smallest = min((gpu.memory for gpu in gpus.values() if isinstance(gpu, Gpu)), default=0)
    stages = [stage for stream in streams for stage in stream.stages if stage.time and stage.num_gpus > 0]
    wide = {
        f"{stage.name} {size_text(stage.time.gpu_memory)} of {size_text(smallest * min(1, stage.num_gpus))}"
        for stage in stages
        if stage.time and stage.time.gpu_memory > smallest * min(1, stage.num_gpus)
    }
    if wide:
        return Finding(
            check="GPU memory",
            status="problem",
            found=", ".join(sorted(wide)),
            needed="a stage's peak below its part of the GPU",
            way_out="raise cluster.gpus_per_actor, take inference.mode=deterministic, or lower images.max_side",
        )
    peak = max((stage.time.gpu_memory for stage in stages if stage.time), default=0)
    return Finding(
        check="GPU memory", status="ok", found=f"{size_text(peak)} an actor, the GPU has {size_text(smallest)}"
    )


def check_object_store(streams: Sequence[StreamForecast], nodes: Sequence[Node]) -> Finding:
    """Rows in flight against Ray Data's part of the object store."""
    have = OBJECT_STORE_SHARE * sum(node.resources.get("object_store_memory", 0) for node in nodes)
    need = max(stream.in_flight_bytes for stream in streams)
    found = f"about {size_text(need)} of rows in flight, Ray Data's part is {size_text(have)}"
    if need <= have:
        return Finding(check="object store", status="ok", found=found)
    return Finding(
        check="object store",
        status="warning",
        found=f"{found}: it would spill to disk, or hold stages back",
        needed="rows in flight below half of the object store",
        way_out="raise cluster.object_store_memory on a local Ray (ray start --object-store-memory), or lower "
        "cluster.rows_per_shard",
    )
