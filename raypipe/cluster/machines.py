"""What a machine has: its nodes with their CPUs, GPUs and memory, as Ray counts them."""

import math
import os
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from raypipe.cluster.tables import text_range

GIB = 2**30

ACTORS_MEMORY = 0.7
"""Part of a node's memory that `parse_machine` leaves to actors: Ray keeps 30 % for its object store by default."""

LEAST_MEMORY = 4 * GIB
"""Of a node that `divide` makes: a driver, a network and what feeds it."""

FORM = "nodes=4,cpus=64,gpus=8,memory=512 (per node; memory in GiB; nodes=0-8 where an autoscaler brings nodes)"
"""The notation of a node type."""

_COUNT = r"\d+(\.\d+)?"
_PATTERNS = {"nodes": r"\d+(-\d+)?", "cpus": _COUNT, "gpus": r"\d+", "memory": _COUNT}


@dataclass(frozen=True, kw_only=True)
class NodeType:
    """Nodes that are alike, and how many of them there are."""

    cpus: float
    """Logical CPUs of a node."""
    gpus: float
    """GPUs of a node."""
    memory: int
    """Bytes of a node that actors may take."""
    minimum: int
    """Nodes that are there."""
    maximum: int
    """Nodes that an autoscaler may bring, with those that are there; without one the same as `minimum`."""


@dataclass(frozen=True)
class Machine:
    """The nodes that a run may use."""

    nodes: tuple[NodeType, ...]
    accelerators: tuple[str, ...] = ()
    """Names of the GPUs as Ray has them, such as A100; empty where nobody knows."""

    def __str__(self) -> str:
        """Such as `4 x (64 CPUs, 8 GPUs, 358 GiB for actors), A100`."""
        types = [
            f"{text_range(node.minimum, node.maximum)} x ({node.cpus:g} CPUs, {node.gpus:g} GPUs, "
            f"{node.memory / GIB:.0f} GiB for actors)"
            for node in self.nodes
        ]
        return ", ".join([" + ".join(types) or "no nodes", *self.accelerators])

    @property
    def cpus(self) -> float:
        """CPUs of all nodes that there can be."""
        return sum(node.maximum * node.cpus for node in self.nodes)

    @property
    def gpus(self) -> float:
        """GPUs of all nodes that there can be."""
        return sum(node.maximum * node.gpus for node in self.nodes)


def parse_machine(*node_types: str) -> Machine:
    """Reads node types such as `nodes=4,cpus=64,gpus=8,memory=512`.

    Args:
        node_types: one text a node type; `nodes` is 1 and `gpus` 0 where they are left out. A node's memory is all that
            it has in GiB; `ACTORS_MEMORY` of it is left to actors.

    Raises:
        ValueError: if a text doesn't have the form, or there is none.
    """
    if not node_types:
        raise ValueError(f"a machine needs at least one node type, got none; write {FORM}")
    return Machine(tuple(_parse_node_type(text) for text in node_types))


def _parse_node_type(text: str) -> NodeType:
    values = {"nodes": "1", "gpus": "0"}
    given: set[str] = set()
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        if name not in _PATTERNS or name in given or not re.fullmatch(_PATTERNS[name], value):
            raise ValueError(f"{part.strip()!r} in the node type {text!r} can't be read; write {FORM}")
        given.add(name)
        values[name] = value
    if missing := {"cpus", "memory"} - given:
        raise ValueError(f"the node type {text!r} has no {' and no '.join(sorted(missing))}; write {FORM}")
    fewest, _, most = values["nodes"].partition("-")
    minimum, maximum = int(fewest), int(most or fewest)
    if maximum < max(1, minimum):
        raise ValueError(f"nodes={values['nodes']} in the node type {text!r} is no range with a node; write {FORM}")
    return NodeType(
        cpus=float(values["cpus"]),
        gpus=float(values["gpus"]),
        memory=int(float(values["memory"]) * GIB * ACTORS_MEMORY),
        minimum=minimum,
        maximum=maximum,
    )


def divide(machine: Machine, number: int) -> Machine | None:
    """One of several equal parts of a machine, in whole CPUs and GPUs.

    Args:
        machine: the nodes; those that are fewer than the parts are divided themselves.
        number: of parts.

    Returns:
        The part; None where it would have no CPU, no GPU although the machine has some, or too little memory.
    """
    nodes = []
    for node in machine.nodes:
        pieces = math.ceil(number / node.maximum)
        each = replace(
            node,
            cpus=node.cpus // pieces,
            gpus=node.gpus // pieces,
            memory=node.memory // pieces,
            minimum=min(1, node.minimum) if pieces > 1 else node.minimum // number,
            maximum=max(1, node.maximum // number),
        )
        if each.cpus >= 1 and each.memory >= LEAST_MEMORY:
            nodes.append(each)
    part = Machine(tuple(nodes), machine.accelerators)
    return part if nodes and bool(part.gpus) == bool(machine.gpus) else None


def machine_here(*, without: Container[str] = ()) -> Machine:
    """The alive nodes of the Ray cluster that this process is connected to; CPUs, GPUs and memory are what Ray says.

    Args:
        without: ids of nodes that are left out.
    """
    import ray

    counts: dict[tuple[float, float, int], int] = {}
    accelerators: set[str] = set()
    for node in ray.nodes():  # type: ignore[no-untyped-call]
        if not node["Alive"] or node["NodeID"] in without:
            continue
        has = node["Resources"]
        kind = (float(has.get("CPU", 0)), float(has.get("GPU", 0)), int(has.get("memory", 0)))
        counts[kind] = counts.get(kind, 0) + 1
        accelerators |= {name.removeprefix("accelerator_type:") for name in has if name.startswith("accelerator_type:")}
    return Machine(
        tuple(
            NodeType(cpus=cpus, gpus=gpus, memory=memory, minimum=number, maximum=number)
            for (cpus, gpus, memory), number in counts.items()
        ),
        tuple(sorted(accelerators)),
    )


def nodes_here(node_ids: Container[str]) -> list[tuple[float, float]]:
    """CPUs and GPUs of those of some nodes that are alive."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"] and node["NodeID"] in node_ids]  # type: ignore[no-untyped-call]
    return [(float(node["Resources"].get("CPU", 0)), float(node["Resources"].get("GPU", 0))) for node in nodes]


def fewer(machine: Machine, gone: Iterable[tuple[float, float]]) -> Machine:
    """A machine without some nodes: an autoscaler brings no others for them while they are there.

    Args:
        machine: the nodes that there can be.
        gone: CPUs and GPUs of each that is left out, which counts as one of the type that is most like it.
    """
    nodes = list(machine.nodes)
    for cpus, gpus in gone:
        alike = [index for index, node in enumerate(nodes) if bool(node.gpus) == bool(gpus)]
        if not alike:
            continue
        index = min(alike, key=lambda index: (abs(nodes[index].gpus - gpus), abs(nodes[index].cpus - cpus)))
        node = nodes[index]
        left = replace(node, minimum=max(0, node.minimum - 1), maximum=node.maximum - 1)
        nodes[index : index + 1] = [left] if left.maximum else []
    return replace(machine, nodes=tuple(nodes))


def local_cpus(*, root: Path = Path("/")) -> int:
    """CPUs that this process may use: the smaller of its affinity and its control groups' quota, at least 1.

    Args:
        root: of the file system that says so.
    """
    return max(1, int(min([len(os.sched_getaffinity(0)), *_quotas(root)])))


def _quotas(root: Path) -> Iterator[float]:
    """CPUs that each control group around this process allows; a group without a quota has none."""
    groups = root / "proc/self/cgroup"
    for line in groups.read_text().splitlines() if groups.is_file() else ():
        _, controllers, path = line.split(":", maxsplit=2)
        if controllers == "":
            yield from _read_quotas(root / "sys/fs/cgroup", path, ["cpu.max"])
        elif "cpu" in controllers.split(","):
            files = ["cpu.cfs_quota_us", "cpu.cfs_period_us"]
            yield from _read_quotas(root / "sys/fs/cgroup/cpu", path, files)


def _read_quotas(mount: Path, group: str, files: Sequence[str]) -> Iterator[float]:
    # A quota of a group binds those within, and in a container the group's own folder may be the mount itself.
    folder = mount / group.strip("/")
    for place in (folder, *folder.parents):
        if place.is_relative_to(mount) and all((place / name).is_file() for name in files):
            quota, period = " ".join((place / name).read_text() for name in files).split()
            if quota not in ("max", "-1"):
                yield int(quota) / int(period)
