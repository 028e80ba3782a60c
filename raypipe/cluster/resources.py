"""Plans a stream's pools: actors that fit a machine's nodes, with CPUs, GPUs, threads and memory for each."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from raypipe.cluster.machines import GIB, Machine
from raypipe.cluster.packing import Need, Room, rooms_of, take_first
from raypipe.cluster.reserves import CPUS_PER_WRITE, MEMORY, WRITE_CPUS, Kind, Reserves
from raypipe.cluster.tables import resource_table, text_range
from raypipe.config import Cluster


class DoesNotFit(ValueError):  # noqa: N818 - says what is wrong
    """What a run needs isn't there: the message says what is needed, what there is, and the way out."""


@dataclass(frozen=True, kw_only=True)
class PoolNeed:
    """A pool of actors that a stream wants."""

    name: str
    """Its stages, such as ComputeCams+PropagateCams."""
    kind: Kind
    """fetch waits for storage, device runs networks, finish keeps one core busy with each actor."""
    gpu_setting: str | None = None
    """The setting that wants a GPU for it; None takes a CPU where there is none."""


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
    if not on_gpus:
        _refuse_gpu_stages(pools, machine)
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
        raise DoesNotFit(f"a run needs a node with a CPU, the machine has {machine}; add one")
    if not gpus:
        return gpus is None and machine.gpus > 0
    largest = max(node.gpus for node in machine.nodes)
    if gpus > largest or (gpus > 1 and gpus % 1):
        raise DoesNotFit(
            f"{option}={gpus:g} needs a node with {math.ceil(gpus)} GPUs or a part of one GPU, the machine has "
            f"{machine}; leave {option} null, or use a machine with such nodes"
        )
    return True


def _refuse_gpu_stages(pools: Sequence[PoolNeed], machine: Machine) -> None:
    """Raises `DoesNotFit` if a pool wants a GPU, of which there are none, or none for it."""
    for setting in filter(None, (pool.gpu_setting for pool in pools)):
        found, other = f"the machine has {machine}", "use a machine with GPUs"
        if machine.gpus:
            found, other = "cluster.gpus_per_actor=0 gives them none", "leave cluster.gpus_per_actor null"
        option, _, _ = setting.partition("=")
        raise DoesNotFit(f"{setting} needs GPUs for the actors with networks, {found}; leave {option} out, or {other}")


class _Packing:
    """Actors on nodes, while the plan is made."""

    def __init__(
        self, name: str, pools: Sequence[PoolNeed], machine: Machine, cluster: Cluster, *, on_gpus: bool
    ) -> None:
        self.name, self.pools, self.machine, self.cluster, self.on_gpus = name, pools, machine, cluster, on_gpus
        self.fixed = {"device": cluster.network_actors, "fetch": cluster.cpu_actors, "finish": cluster.cpu_actors}
        self.reserves = Reserves(kinds=[pool.kind for pool in pools], machine=machine, cluster=cluster, on_gpus=on_gpus)
        self.needs = [self.reserves.need(pool.kind) for pool in pools]
        self.tight = False
        self._empty()

    def _empty(self) -> None:
        self.rooms = rooms_of(self.machine)
        self.write_tasks = 1
        self.counts = [0] * len(self.pools)
        self.sure_counts = [0] * len(self.pools)
        self.room_counts: Counter[tuple[Room, Kind]] = Counter()

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
        self.write_room = take_first(self.rooms, Need(cpus=WRITE_CPUS))
        return self.write_room is not None

    def place_fixed(self) -> None:
        """Places the actors that the user asks for."""
        for index, pool in enumerate(self.pools):
            number, need = self.fixed[pool.kind] or 1, self.needs[index]
            while self.counts[index] < number:
                room = take_first(self.rooms, need)
                if room is None:
                    option = "cluster.network_actors" if pool.kind == "device" else "cluster.cpu_actors"
                    raise DoesNotFit(
                        f"{option}={number} needs {number} actors of {pool.name} in {self.name}, each with "
                        f"{need.cpus:g} CPUs and {need.gpus:g} GPUs, beside an actor of each other pool; there is room "
                        f"for {self.counts[index]} on {self.machine}; leave {option} null, lower it, or add nodes"
                    )
                self._add(index, room)

    def grow(self) -> None:
        """Fills the nodes with actors of the pools that the user leaves open, each kind in turn, and with writing."""
        kinds: list[Kind] = ["device", "finish", "fetch"]
        growing = [kind for kind in kinds if self.fixed[kind] is None and self._indices(kind) and not self.tight]
        for room in self.rooms:
            if self.on_gpus and "device" in growing:  # first: a GPU costs more than the CPUs beside it
                while self._grow(room, "device"):
                    pass
            while sum(self._grow(room, kind) for kind in growing):
                pass
        for room in self.rooms:
            for _ in range(int(room.node.cpus) // CPUS_PER_WRITE - (room is self.write_room)):
                self.write_tasks += room.take(Need(cpus=WRITE_CPUS))

    def _grow(self, room: Room, kind: Kind) -> bool:
        index = min(self._indices(kind), key=lambda index: self.counts[index])
        if self.room_counts[room, kind] >= self.reserves.limit(room.node, kind) or not room.take(self.needs[index]):
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
        if idle_gpus and self._indices("device"):
            if not self.on_gpus:
                reason = "cluster.gpus_per_actor=0 runs networks on CPUs"
            elif self.cluster.network_actors is not None:
                reason = f"cluster.network_actors is {self.cluster.network_actors}"
            elif self.cluster.gpus_per_actor is not None:
                reason = f"cluster.gpus_per_actor is {self.cluster.gpus_per_actor:g}"
            else:
                reason = "the nodes' CPUs and memory hold no more actors"
            yield f"GPUs that stay idle: {idle_gpus}, as {reason}"
        if self.on_gpus and self._indices("device") and len(kinds := self.machine.accelerators) > 1:
            yield (
                f"GPUs of several kinds ({', '.join(kinds)}): a mask doesn't depend on the run, but on the kind that "
                "computes it, in up to 0.5 % of its pixels; for equal bytes use nodes of one kind"
            )
        if self.tight:
            yield (
                f"the nodes have less memory than an actor of each pool is reckoned with, "
                f"{sum(MEMORY[pool.kind] for pool in self.pools) / GIB:g} GiB: no pool grows, and actors may be killed"
            )
        elif self.cluster.cpu_actors is None and (finish := self._indices("finish")):
            most = sum(self.reserves.limit(room.node, "finish") for room in self.rooms if room.node.cpus >= 1)
            if (number := sum(self.counts[index] for index in finish)) < most:
                yield f"the nodes' memory holds {number} of the {most} finishing actors that their CPUs could run"
