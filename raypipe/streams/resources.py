"""Plans a stream's pools: actors that fit a machine's nodes, with CPUs, GPUs, threads and memory for each.

Ray starts an actor where the CPUs that it reserves are free, and doesn't care what it runs: the operating system shares
the cores out. So what an actor reserves only says how many of its kind fit a node, and it is chosen so that a node of one
CPU holds an actor of every pool and the task that writes, and a larger node one finishing actor a CPU beside the networks.
"""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from raypipe.config import Cluster
from raypipe.streams.machines import GIB, Machine, NodeType
from raypipe.streams.packing import Need, Room, rooms_of, round_down, take_first
from raypipe.streams.tables import resource_table, text_range

Kind = Literal["fetch", "device", "finish"]

FETCH_CPUS = 0.05
"""CPUs that an actor reserves which waits for storage."""
WRITE_CPUS = 0.05
"""CPUs that a task reserves which writes a shard."""
FINISH_SHARE = 0.5
"""Part of the CPUs that is reserved for actors that finish rows; each reserves this part of a CPU."""
DEVICE_SHARE = 0.4
"""Part of a node's CPUs that is reserved for its actors that run networks."""
LONE_SHARE = 0.9
"""The same, either kind, in a stream without the other."""

CPUS_PER_FETCH = 16
"""An actor that waits for storage feeds that many CPUs."""
CPUS_PER_WRITE = 8
"""Rows of that many CPUs are written by one task at a time: a shard's rows take its actors many times as long."""
MAX_THREADS = 8
"""Threads of an actor with a network at most; more of them don't decode faster."""

MEMORY: dict[Kind, int] = {"fetch": GIB // 2, "device": 3 * GIB // 2, "finish": GIB}
"""Bytes that an actor is reckoned with."""


class DoesNotFit(ValueError):  # noqa: N818 - says what is wrong
    """What a run needs isn't there: the message says what is needed, what there is, and the way out."""


@dataclass(frozen=True, kw_only=True)
class PoolNeed:
    """A pool of actors that a stream wants."""

    name: str
    """Its stages, such as ComputeCams+PropagateCams."""
    kind: Kind
    """fetch waits for storage, device runs networks, finish keeps one core busy with each actor."""


@dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """A pool as it is started: all its actors fit, together with all those of the other pools."""

    name: str
    kind: Kind
    min_actors: int
    """Actors at the start."""
    max_actors: int
    """The pool grows up to here while rows wait."""
    cpus: float
    """Logical CPUs that an actor reserves."""
    gpus: float
    """GPUs that an actor reserves."""
    threads: int
    """Threads that compute or decode in an actor: no more than its CPUs, at least 1. Threads that wait don't count."""
    memory: int | None
    """Bytes that an actor reserves; None where the machine has less than the pools are reckoned with."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """A stream's pools on a machine; `str` is a table of them."""

    name: str
    pools: tuple[PoolPlan, ...]
    write_cpus: float
    """CPUs of a task that writes a shard."""
    write_tasks: int
    """Tasks that write at the same time at most. Without a limit Ray starts a process for each of hundreds."""
    idle_gpus: int
    """GPUs that are there and that no actor takes."""
    notes: tuple[str, ...] = ()
    """What the user may want to change."""

    def __str__(self) -> str:
        """The pools as a table, with what stays idle and the notes."""
        rows = [
            (pool.name, text_range(pool.min_actors, pool.max_actors), pool.cpus, pool.gpus, pool.threads)
            for pool in self.pools
        ]
        rows.append(("(write)", text_range(1, self.write_tasks), self.write_cpus, 0, 1))
        return resource_table(self.name, rows, idle_gpus=self.idle_gpus, notes=self.notes)


def plan_stream(name: str, pools: Sequence[PoolNeed], machine: Machine, cluster: Cluster) -> StreamPlan:
    """Plans a stream's pools.

    Networks take all GPUs that there are, and several pools of them share each; without GPUs they take a thread each.
    The other pools start with one actor and grow. All pools at their largest fit the nodes together.

    Args:
        name: the stream's, for messages.
        pools: in the order of the rows' way.
        machine: the nodes.
        cluster: what it sets is taken as it is, what is null is planned.

    Raises:
        DoesNotFit: if it doesn't.
    """
    on_gpus = uses_gpus(cluster.gpus_per_actor, machine, option="cluster.gpus_per_actor")
    packing = _Packing(name, pools, machine, cluster, on_gpus=on_gpus)
    packing.place_first()
    packing.place_fixed()
    packing.grow()
    idle_gpus = sum(room.idle_gpus for room in packing.rooms if room.sure)
    return StreamPlan(
        name=name,
        pools=tuple(packing.plan(index) for index in range(len(pools))),
        write_cpus=WRITE_CPUS,
        write_tasks=packing.write_tasks,
        idle_gpus=idle_gpus,
        notes=tuple(packing.notes(idle_gpus)),
    )


def uses_gpus(gpus: float | None, machine: Machine, *, option: str) -> bool:
    """Whether GPUs are used: where there are any, unless the user's number, `gpus` of each actor or worker, is 0.

    Raises:
        DoesNotFit: if the machine can't give the user's number to anybody.
    """
    if not any(node.cpus >= 1 for node in machine.nodes):
        raise DoesNotFit(f"a run needs a node with a CPU, the machine has {machine or 'no node'}; add one")
    if not gpus:
        return gpus is None and machine.gpus > 0
    largest = max(node.gpus for node in machine.nodes)
    if gpus > largest or (gpus > 1 and gpus % 1):
        raise DoesNotFit(
            f"{option}={gpus:g} needs a node with {math.ceil(gpus)} GPUs or a part of one GPU, the machine has "
            f"{machine}; leave {option} null, or use a machine with such nodes"
        )
    return True


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """TEMPORARY."""

    workers: int
    cpus: float
    gpus: float
    threads: int
    loaders: PoolPlan
    validation: PoolPlan | None


def plan_training(name: str, batch_size: int, machine: Machine, cluster: Cluster, *, validates: bool) -> TrainingPlan:
    """TEMPORARY."""
    pool = PoolPlan(name=name, kind="finish", min_actors=1, max_actors=2, cpus=0.2, gpus=0, threads=1, memory=None)
    return TrainingPlan(workers=1, cpus=1.0, gpus=0, threads=2, loaders=pool, validation=pool if validates else None)


class _Packing:
    """Actors on nodes, while the plan is made."""

    def __init__(
        self, name: str, pools: Sequence[PoolNeed], machine: Machine, cluster: Cluster, *, on_gpus: bool
    ) -> None:
        self.name, self.pools, self.machine, self.cluster, self.on_gpus = name, pools, machine, cluster, on_gpus
        kinds = Counter(pool.kind for pool in pools)
        self.num_devices = kinds["device"]
        self.fixed = {"device": cluster.network_actors, "fetch": cluster.cpu_actors, "finish": cluster.cpu_actors}
        self.shares = {
            "device": DEVICE_SHARE if kinds["finish"] else LONE_SHARE,
            "finish": FINISH_SHARE if kinds["device"] else LONE_SHARE,
        }
        self.needs = [self._need(pool.kind) for pool in pools]
        self.tight = False
        self.write_tasks = 0
        self._empty()

    def _empty(self) -> None:
        self.rooms = rooms_of(self.machine)
        self.counts = [0] * len(self.pools)
        self.sure_counts = [0] * len(self.pools)
        self.room_counts: Counter[tuple[Room, Kind]] = Counter()

    def _need(self, kind: Kind) -> Need:
        if kind == "fetch":
            return Need(cpus=FETCH_CPUS, memory=MEMORY[kind])
        if kind == "finish":
            return Need(cpus=self.shares[kind], memory=MEMORY[kind])
        gpus = self._gpus_per_actor() if self.on_gpus else 0.0
        asked = self.num_devices * (self.cluster.network_actors or 10**9)
        cpus = min(
            self.shares[kind] * node.cpus / min(asked, self._device_slots(node, gpus))
            for node in self.machine.nodes
            if (node.gpus >= max(1, gpus) if self.on_gpus else node.cpus >= 1)
        )
        most = MAX_THREADS if self.on_gpus or self.cluster.network_actors else 1
        return Need(cpus=min(most, int(cpus)) if cpus >= 1 else round_down(cpus), gpus=gpus, memory=MEMORY[kind])

    def _gpus_per_actor(self) -> float:
        if self.cluster.gpus_per_actor:
            return self.cluster.gpus_per_actor
        if self.cluster.network_actors is None:
            return round_down(1 / self.num_devices)
        return round_down(1 / math.ceil(self.cluster.network_actors * self.num_devices / self.machine.gpus))

    def _device_slots(self, node: NodeType, gpus: float) -> int:
        if not gpus:
            return max(int(node.cpus), self.num_devices)
        return int(node.gpus // gpus) if gpus >= 1 else int(node.gpus) * int(1 / gpus)

    def _limit(self, room: Room, kind: Kind) -> int:
        """Actors of a kind that one node gets at most."""
        if kind == "fetch":
            return max(1, int(room.node.cpus) // CPUS_PER_FETCH)
        if kind == "finish":
            return max(1, int(room.node.cpus))
        return self._device_slots(room.node, self.needs[self._indices(kind)[0]].gpus)

    def _indices(self, kind: Kind) -> list[int]:
        return [index for index, pool in enumerate(self.pools) if pool.kind == kind]

    def _add(self, index: int, room: Room) -> None:
        self.counts[index] += 1
        self.sure_counts[index] += room.sure
        self.room_counts[room, self.pools[index].kind] += 1

    def place_first(self) -> None:
        """Places one actor of each pool and a task that writes: without them no row gets through."""
        if self._place_first():
            return
        self.tight = True
        self.needs = [replace(need, memory=0) for need in self.needs]
        self._empty()
        if not self._place_first():
            text = ", ".join(
                f"{pool.name} ({need.cpus:g} CPUs, {need.gpus:g} GPUs)"
                for pool, need in zip(self.pools, self.needs, strict=True)
            )
            raise DoesNotFit(
                f"{self.name} needs an actor of each pool at the same time: {text}; the machine has {self.machine}; "
                "leave cluster.gpus_per_actor and cluster.network_actors null, or use more or larger nodes"
            )

    def _place_first(self) -> bool:
        # What is hardest to place comes first.
        for index in [*self._indices("device"), *self._indices("finish"), *self._indices("fetch")]:
            room = take_first(self.rooms, self.needs[index])
            if room is None:
                return False
            self._add(index, room)
        return self._write()

    def _write(self) -> bool:
        found = take_first(self.rooms, Need(cpus=WRITE_CPUS)) is not None
        self.write_tasks = max(1, self.write_tasks + found)
        return found

    def place_fixed(self) -> None:
        """Places the actors that the user asks for, and tasks that write."""
        for index, pool in enumerate(self.pools):
            number = self.fixed[pool.kind] or 1
            while self.counts[index] < number:
                room = take_first(self.rooms, self.needs[index])
                if room is None:
                    option = "cluster.network_actors" if pool.kind == "device" else "cluster.cpu_actors"
                    raise DoesNotFit(
                        f"{option}={number} needs {number} actors of {pool.name} in {self.name} with "
                        f"{self.needs[index].cpus:g} CPUs and {self.needs[index].gpus:g} GPUs each, beside an actor of each other pool; there is room for "
                        f"{self.counts[index]} on {self.machine}; leave {option} null, lower it, or add nodes"
                    )
                self._add(index, room)
        while self.write_tasks < int(self.machine.cpus) // CPUS_PER_WRITE and self._write():
            pass

    def grow(self) -> None:
        """Fills the nodes, each kind in turn, with actors of the pools that the user leaves open."""
        kinds: list[Kind] = ["device", "finish", "fetch"]
        growing = [kind for kind in kinds if self.fixed[kind] is None and self._indices(kind) and not self.tight]
        for room in self.rooms:
            if self.on_gpus and "device" in growing:  # first: a GPU costs more than the CPUs beside it
                while self._grow(room, "device"):
                    pass
            while any([self._grow(room, kind) for kind in growing]):
                pass

    def _grow(self, room: Room, kind: Kind) -> bool:
        index = min(self._indices(kind), key=lambda index: self.counts[index])
        if self.room_counts[room, kind] >= self._limit(room, kind) or not room.take(self.needs[index]):
            return False
        self._add(index, room)
        return True

    def plan(self, index: int) -> PoolPlan:
        """The plan of a pool, once all are placed."""
        pool, need, most = self.pools[index], self.needs[index], self.counts[index]
        fewest = self.fixed[pool.kind] or (max(1, self.sure_counts[index]) if need.gpus else 1)
        return PoolPlan(
            name=pool.name,
            kind=pool.kind,
            min_actors=fewest,
            max_actors=most,
            cpus=need.cpus,
            gpus=need.gpus,
            threads=max(1, int(need.cpus)),
            memory=need.memory or None,
        )

    def notes(self, idle_gpus: int) -> Iterator[str]:
        """What the user may want to change."""
        if idle_gpus and self.num_devices:
            if not self.on_gpus:
                reason = "cluster.gpus_per_actor=0 runs networks on CPUs"
            elif self.cluster.network_actors is not None:
                reason = f"cluster.network_actors={self.cluster.network_actors}"
            elif self.cluster.gpus_per_actor is not None:
                reason = f"cluster.gpus_per_actor={self.cluster.gpus_per_actor:g}"
            else:
                reason = "the nodes' CPUs and memory hold no more actors"
            yield f"{idle_gpus} GPUs stay idle: {reason}"
        if self.tight:
            yield (
                f"the nodes have less memory than an actor of each pool is reckoned with, "
                f"{sum(MEMORY[pool.kind] for pool in self.pools) / GIB:g} GiB: no pool grows, and actors may be killed"
            )
        elif self.cluster.cpu_actors is None and (finish := self._indices("finish")):
            most = sum(self._limit(room, "finish") for room in self.rooms if room.node.cpus >= 1)
            if (number := sum(self.counts[index] for index in finish)) < most:
                yield f"the nodes' memory holds {number} of the {most} finishing actors that their CPUs could run"
