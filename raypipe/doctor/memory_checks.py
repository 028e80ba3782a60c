"""Checks of memory, of nodes, GPUs and the object store, by what a timed sample took."""

import math
from collections.abc import Mapping, Sequence

from raypipe.cluster.findings import Finding, judge, size_text
from raypipe.cluster.machines import Machine
from raypipe.cluster.survey import Gpu, Node
from raypipe.data.images import reduced_size
from raypipe.doctor.forecast import Sample, StreamForecast

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
    return judge(
        "memory",
        found,
        status="ok" if worst <= 0.8 else "warning" if worst <= 1 else "problem",
        needed="the sum over a node's actors of their pool's peak, below 80 % of what Ray counts as the node's memory",
        way_out="fewer cluster.cpu_actors or cluster.network_actors, larger nodes, or a smaller images.max_side",
    )


def _node_memory(stream: StreamForecast, node: Node, machine: Machine) -> float:
    shares = {
        kind: node.resources.get(kind, 0) / (all_nodes or 1)
        for kind, all_nodes in (("GPU", machine.gpus), ("CPU", machine.cpus))
    }
    return sum(
        math.ceil(pool.actors * shares["GPU" if pool.gpus else "CPU"]) * pool.time.memory for pool in stream.pools
    )


def check_gpu_memory(streams: Sequence[StreamForecast], gpus: Mapping[str, Gpu | str]) -> Finding:
    """Peak of each pool on a GPU against its part of the smallest GPU."""
    smallest = min((gpu.memory for gpu in gpus.values() if isinstance(gpu, Gpu)), default=0)
    pools = [pool for stream in streams for pool in stream.pools if pool.gpus > 0]
    parts = {(pool.name, pool.time.gpu_memory, smallest * min(1, pool.gpus)) for pool in pools}
    wide = sorted(f"{name} {size_text(peak)} of {size_text(part)}" for name, peak, part in parts if peak > part)
    highest = max((peak for _, peak, _ in parts), default=0)
    return judge(
        "GPU memory",
        ", ".join(wide) or f"{size_text(highest)} an actor, the GPU has {size_text(smallest)}",
        status="problem" if wide else "ok",
        needed="a pool's peak below its part of the GPU",
        way_out="raise cluster.gpus_per_actor, inference.mode=deterministic, or lower images.max_side",
    )


def check_object_store(streams: Sequence[StreamForecast], nodes: Sequence[Node]) -> Finding:
    """The source's rows and those between pools against Ray Data's part of the object store."""
    have = OBJECT_STORE_SHARE * sum(node.resources.get("object_store_memory", 0) for node in nodes)
    need = max(stream.in_flight_bytes for stream in streams)
    rows = f"about {size_text(need)} of rows in flight" if need else "no rows are in flight between actors"
    found = f"{rows}, Ray Data's part is {size_text(have)}"
    return judge(
        "object store",
        found if need <= have else f"{found}: it would spill to disk, or hold stages back",
        status="ok" if need <= have else "warning",
        needed="rows in flight below half of the object store",
        way_out="raise cluster.object_store_memory on a local Ray (ray start --object-store-memory), or lower "
        "cluster.rows_per_block",
    )
