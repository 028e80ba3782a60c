"""Packs actors onto nodes: an actor needs its CPUs, GPUs and memory on one node, and a part of a GPU on one GPU."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from raypipe.cluster.machines import Machine, NodeType

GRAIN = 10_000
"""Ray counts CPUs and GPUs in ten-thousandths."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """What an actor or a task reserves."""

    cpus: float
    gpus: float = 0
    memory: int = 0
    """Bytes."""


class Room:
    """What is free of one node."""

    def __init__(self, node: NodeType, *, sure: bool = True) -> None:
        """Takes the whole node.

        Args:
            node: its type.
            sure: the node is there; else an autoscaler may bring it.
        """
        self.node, self.sure = node, sure
        self.memory = node.memory
        """Bytes that are free."""
        self._cpus = round(node.cpus * GRAIN)
        self._gpus = [GRAIN] * int(node.gpus)

    @property
    def idle_gpus(self) -> int:
        """GPUs of which nothing is taken."""
        return self._gpus.count(GRAIN)

    def take(self, need: Need) -> bool:
        """Takes what is needed if it is free; returns whether it was."""
        cpus, gpus = round(need.cpus * GRAIN), round(need.gpus * GRAIN)
        if cpus > self._cpus or need.memory > self.memory or not self._take_gpus(gpus):
            return False
        self._cpus -= cpus
        self.memory -= need.memory
        return True

    def _take_gpus(self, gpus: int) -> bool:
        # The fullest GPUs that have room, as Ray does: whole ones stay whole.
        each, number = (gpus, 1) if gpus <= GRAIN else (GRAIN, gpus // GRAIN)
        fitting = sorted((free, index) for index, free in enumerate(self._gpus) if free >= each)
        if gpus and len(fitting) < number:
            return False
        for _, index in fitting[:number] if gpus else ():
            self._gpus[index] -= each
        return True


def rooms_of(machine: Machine) -> list[Room]:
    """The empty nodes of a machine, those that are there first."""
    there = [Room(node) for node in machine.nodes for _ in range(node.minimum)]
    return there + [Room(node, sure=False) for node in machine.nodes for _ in range(node.maximum - node.minimum)]


def take_first(rooms: Sequence[Room], need: Need) -> Room | None:
    """Takes a need from the first node that has it, and returns the node, None where there is none.

    What needs no GPU goes to nodes without GPUs first, as Ray's scheduler has it.
    """
    order = rooms if need.gpus else sorted(rooms, key=lambda room: room.node.gpus > 0)
    return next((room for room in order if room.take(need)), None)


def round_down(value: float) -> float:
    """The largest number of CPUs or GPUs that Ray can count and that is no more than a value."""
    return math.floor(value * GRAIN + 1e-6) / GRAIN
