"""Checks of memory, of nodes, GPUs and the object store, by what a timed sample took."""

import math
from collections.abc import Mapping, Sequence

from raypipe.data.images import reduced_size
from raypipe.doctor.findings import Finding, size_text
from raypipe.doctor.forecast import Sample, StreamForecast
from raypipe.doctor.survey import Gpu, Node
from raypipe.streams.machines import Machine

OBJECT_STORE_SHARE = 0.5
"""Ray Data's share of the object store."""


def check_memory(
    sample: Sample, streams: Sequence[StreamForecast], nodes: Sequence[Node], machine: Machine, *, max_side: int
) -> Finding:
    """Memory of each node against its share of a stream's actors, each at the peak that the sample showed.

    That peak is of the largest image of the sample, its decoding, passes and maps included. Passes and maps grow with
    the pixels that are worked on.

    Args:
        sample: timed.
        streams: forecast of it.
        nodes: that are there.
        machine: what the actors are planned for, nodes that an autoscaler may bring included.
        max_side: longer images are reduced to this long side, in pixels.
    """
    lines, worst = [], 0.0
    for node in nodes:
        have = node.resources.get("memory", 0)
        need = max(_node_memory(stream, node, machine) for stream in streams)
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
        needed="the sum over a node's actors of their pool's peak, below 80 % of what Ray counts as the node's memory",
        way_out="fewer cluster.cpu_actors or cluster.network_actors, larger nodes, or a smaller images.max_side",
    )


def _node_memory(stream: StreamForecast, node: Node, machine: Machine) -> float:
    total = 0.0
    for pool in stream.pools:
        kind, all_nodes = ("GPU", machine.gpus) if pool.gpus else ("CPU", machine.cpus)
        share = node.resources.get(kind, 0) / (all_nodes or 1)
        total += math.ceil(pool.actors * share) * pool.time.memory
    return total


def check_gpu_memory(streams: Sequence[StreamForecast], gpus: Mapping[str, Gpu | str]) -> Finding:
    """Peak of each pool on a GPU against its part of the smallest GPU."""
    smallest = min((gpu.memory for gpu in gpus.values() if isinstance(gpu, Gpu)), default=0)
    pools = [pool for stream in streams for pool in stream.pools if pool.gpus > 0]
    wide = {
        f"{pool.name} {size_text(pool.time.gpu_memory)} of {size_text(smallest * min(1, pool.gpus))}"
        for pool in pools
        if pool.time.gpu_memory > smallest * min(1, pool.gpus)
    }
    if wide:
        return Finding(
            check="GPU memory",
            status="problem",
            found=", ".join(sorted(wide)),
            needed="a pool's peak below its part of the GPU",
            way_out="raise cluster.gpus_per_actor, inference.mode=deterministic, or lower images.max_side",
        )
    peak = max((pool.time.gpu_memory for pool in pools), default=0)
    return Finding(
        check="GPU memory", status="ok", found=f"{size_text(peak)} an actor, the GPU has {size_text(smallest)}"
    )


def check_object_store(streams: Sequence[StreamForecast], nodes: Sequence[Node]) -> Finding:
    """The source's rows and those between pools against Ray Data's part of the object store."""
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
