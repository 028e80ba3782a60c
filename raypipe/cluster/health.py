"""The nodes of the cluster that are sick, which a run leaves out: by the label that Ray gives each node."""

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from raypipe.cluster.connect import is_connected
from raypipe.cluster.watch import Watch

NODE_ID = "ray.io/node-id"
"""Label that each node has by itself."""


class AllSick(RuntimeError):  # noqa: N818 - says what is wrong
    """No node is left that rows can be computed on."""


def the_watch() -> Any:
    """Handle of the watch of this job: an actor on the driver's node, where it is made before anything else runs.

    Whoever makes it is to outlive the others: it ends with its maker.
    """
    import ray

    context = ray.get_runtime_context()
    return _watch_of(context.get_node_id(), context.get_job_id())


@cache  # Ray ends an actor whose first handle is gone
def _watch_of(node_id: str, job_id: str) -> Any:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return (
        ray.remote(Watch)
        .options(
            name=f"raypipe-watch-{job_id}",
            get_if_exists=True,
            num_cpus=0,
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
        )
        .remote()
    )


def sick_nodes() -> dict[str, str]:
    """Ids of the nodes that are sick, with the reason."""
    if not is_connected():
        return {}
    import ray

    found: dict[str, str] = ray.get(the_watch().sick.remote())
    return found


def leave_out(nodes: dict[str, str]) -> None:
    """Takes nodes for sick from now on, by their ids, with the reason."""
    import ray

    if nodes and ray.is_initialized():
        ray.get(the_watch().exclude.remote(nodes))


def forgive() -> None:
    """Lets rows be tried again that were convicted."""
    import ray

    ray.get(the_watch().forgive.remote())


def are_more_sick(before: Mapping[str, str]) -> bool:
    """Whether nodes have become sick that weren't, so that what has failed on them is to be tried without them.

    Args:
        before: those that were sick.

    Raises:
        AllSick: if no node with a CPU is left, or what is to be computed can be set up on none, with the reasons.
    """
    import ray

    if given_up := ray.get(the_watch().given_up.remote()):
        raise AllSick("; ".join(given_up))
    now = sick_nodes()
    if now.keys() <= before.keys():
        return False
    alive = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    at_work = [node_id for node_id, node in alive.items() if node["Resources"].get("CPU", 0) >= 1]
    if set(at_work) <= now.keys():
        named = "; ".join(named_nodes({node_id: now[node_id] for node_id in at_work}))
        raise AllSick(f"rows can't be computed on any node ({named}): mend them, then the same command goes on")
    return True


def named_nodes(nodes: Mapping[str, str]) -> list[str]:
    """Nodes by their addresses, with the reason that each has in `nodes`, by id."""
    import ray

    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}  # type: ignore[no-untyped-call]
    return [f"node {addresses.get(node_id, '?')} ({node_id[:12]}): {reason}" for node_id, reason in nodes.items()]


def without_nodes(node_ids: Iterable[str]) -> dict[str, str]:
    """Ray's label selector of all nodes but some; empty where there are none to leave out."""
    left_out = sorted(node_ids)
    return {NODE_ID: f"!in({','.join(left_out)})"} if left_out else {}
