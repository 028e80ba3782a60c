"""Ray's scheduler as far as plans need it, written apart from the planner: where actors find room on nodes."""

from typing import Any

from raypipe.cluster.machines import Machine


class Nodes:
    """What is free of a machine's nodes, all that there can be."""

    def __init__(self, machine: Machine) -> None:
        self.nodes: list[dict[str, Any]] = [
            {"cpus": node.cpus, "gpus": [1.0] * int(node.gpus), "memory": float(node.memory)}
            for node in machine.nodes
            for _ in range(node.maximum)
        ]
        self.whole = [dict(node) for node in self.nodes]

    def place(self, number: int, cpus: float, gpus: float = 0, memory: int = 0) -> None:
        """Fails where so many actors don't find room, each on one node.

        As Ray's hybrid policy has it: the first node that is used by less than half, else the one that is used least;
        what needs no GPU goes to nodes without GPUs as long as it can.
        """
        for _ in range(number):

            def rank(index: int) -> tuple[bool, float, int]:
                used = self.used(index)
                return bool(self.nodes[index]["gpus"]) and not gpus, used if used >= 0.5 else 0.0, index

            order = sorted(range(len(self.nodes)), key=rank)
            assert any(self.take(self.nodes[index], cpus, gpus, memory) for index in order), (
                f"no node has {cpus} CPUs, {gpus} GPUs and {memory} bytes: {self.nodes}"
            )

    def used(self, index: int) -> float:
        """Part of a node's CPUs or memory, whichever is more, that is taken."""
        node, whole = self.nodes[index], self.whole[index]
        return max(1 - node[kind] / whole[kind] for kind in ("cpus", "memory") if whole[kind])

    @staticmethod
    def take(node: dict[str, Any], cpus: float, gpus: float, memory: int) -> bool:
        if node["cpus"] < cpus - 1e-9 or node["memory"] < memory:
            return False
        if gpus > 1:
            whole = [index for index, free in enumerate(node["gpus"]) if free == 1]
            if len(whole) < gpus:
                return False
            for index in whole[: int(gpus)]:
                node["gpus"][index] = 0.0
        elif gpus:
            index = next((index for index, free in enumerate(node["gpus"]) if free >= gpus - 1e-9), None)
            if index is None:
                return False
            node["gpus"][index] -= gpus
        node["cpus"] -= cpus
        node["memory"] -= memory
        return True

    @property
    def idle_gpus(self) -> int:
        return sum(gpu == 1 for node in self.nodes for gpu in node["gpus"])
