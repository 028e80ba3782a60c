"""How many CPUs and GPUs an actor of each kind reserves, and how many of a kind a node gets.

Ray starts an actor where the CPUs that it reserves are free, and doesn't care what it runs: the operating system shares
the cores out. So what an actor reserves only says how many of its kind fit a node. The numbers are such that a node of
one CPU holds an actor of every pool and a task that writes, a larger one a finishing actor a CPU beside the networks.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from raypipe.cluster.machines import GIB, Machine, NodeType
from raypipe.cluster.packing import Need, round_down
from raypipe.config import Cluster

Kind = Literal["fetch", "device", "finish"]

FETCH_CPUS = 0.05
"""CPUs that an actor reserves which waits for storage."""
WRITE_CPUS = 0.05
"""CPUs that a task reserves which writes a shard."""
FINISH_SHARE = 0.5
"""Part of a CPU that an actor reserves which finishes rows; a node gets one a CPU."""
DEVICE_SHARE = 0.4
"""Part of a node's CPUs that its actors with networks reserve together."""
LONE_SHARE = 0.9
"""The same, either kind, in a stream without the other."""

CPUS_PER_FETCH = 4
"""An actor that waits for storage feeds that many CPUs. Of storage that answers after 0.1 s one gets 30 small images a
second: with one for 16 CPUs a network on a GPU waited half of its time."""
CPUS_PER_WRITE = 8
"""Rows of that many CPUs are written by one task at a time: to compute them takes many times as long."""
MAX_THREADS = 8
"""Threads of an actor with a network at most: more of them don't decode faster."""

MEMORY: dict[Kind, int] = {"fetch": GIB // 2, "device": 3 * GIB // 2, "finish": GIB}
"""Bytes that an actor is reckoned with."""


@dataclass(frozen=True, kw_only=True)
class Reserves:
    """What the actors of one stream reserve."""

    kinds: Sequence[Kind]
    """One for each pool."""
    machine: Machine
    cluster: Cluster
    on_gpus: bool
    """Networks run on GPUs."""

    def need(self, kind: Kind) -> Need:
        """What an actor reserves."""
        if kind == "fetch":
            return Need(cpus=FETCH_CPUS, memory=MEMORY[kind])
        if kind == "finish":
            return Need(cpus=FINISH_SHARE if "device" in self.kinds else LONE_SHARE, memory=MEMORY[kind])
        return Need(cpus=self._device_cpus(), gpus=self._device_gpus(), memory=MEMORY[kind])

    def limit(self, node: NodeType, kind: Kind) -> int:
        """Actors of a kind, of all its pools together, that one node gets at most."""
        if kind == "fetch":
            return max(1, int(node.cpus) // CPUS_PER_FETCH)
        if kind == "finish":
            return max(1, int(node.cpus))
        gpus = self._device_gpus()
        if not gpus:
            return max(int(node.cpus), self.kinds.count("device"))
        return int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * int(1 / gpus)

    def _device_cpus(self) -> float:
        number = self.cluster.network_actors
        share = DEVICE_SHARE if "finish" in self.kinds else LONE_SHARE
        # All actors of a pool are alike, so the node that has the fewest CPUs for each decides.
        cpus = min(
            share * node.cpus / min(limit, number * self.kinds.count("device") if number else limit)
            for node in self.machine.nodes
            if (limit := self.limit(node, "device")) and (self.on_gpus or node.cpus >= 1)
        )
        if cpus < 1:
            return round_down(cpus)
        # A network on a CPU takes one thread, however few there are: with more, its sums are rounded in another order,
        # and masks would depend on the cluster.
        return min(MAX_THREADS, int(cpus)) if self.on_gpus else 1

    def _device_gpus(self) -> float:
        if not self.on_gpus:
            return 0
        if self.cluster.gpus_per_actor:
            return self.cluster.gpus_per_actor
        pools, number = self.kinds.count("device"), self.cluster.network_actors
        return round_down(1 / (pools if number is None else math.ceil(number * pools / self.machine.gpus)))
