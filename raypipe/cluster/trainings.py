"""Plans a training: its workers, and beside each the actors that load its crops and its validation images."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from raypipe.cluster.machines import GIB, Machine
from raypipe.cluster.resources import DoesNotFit, uses_gpus
from raypipe.cluster.tables import resource_table, text_range
from raypipe.config import Cluster

VALIDATION_POOLS = 2
"""Pools of a validation's stream at most."""
MAX_LOADERS = 16
"""Actors that load for one worker at most."""
CPUS_PER_LOADER = 4
"""CPUs of a network in training that one loading actor feeds."""
LOADER_SHARE = 8
"""Without GPUs one CPU in so many is left to loaders, at least one where a node has several: threads that wait for one
another lose more by sharing a CPU with a loader than another thread gains (benchmarks/rebuild.md)."""
WORKER_MEMORY = 2 * GIB
"""Bytes that a worker is reckoned with."""
LOADER_MEMORY = GIB
"""Bytes that an actor beside it is reckoned with."""

_PARTS = (1, 0.5, 0.25, 0.1, 0.05, 0.01, 0)
"""CPUs that an actor may reserve, the most first."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """A training on a machine; `str` is a table of it."""

    name: str
    workers: int
    min_workers: int
    """Workers with which it goes on while nodes for more are missing."""
    cpus: float
    """Logical CPUs that a worker reserves."""
    gpus: float
    """GPUs that a worker reserves."""
    threads: int
    """torch's threads in a worker."""
    loaders: int
    """Actors of each worker that load and augment crops."""
    loader_cpus: float
    """Logical CPUs that one of them reserves."""
    validation_actors: int
    """Actors of each worker in each of the `VALIDATION_POOLS` pools of its validation; 0 where nothing is validated."""
    validation_cpus: float
    """Logical CPUs that one of them reserves."""
    idle_gpus: int
    """GPUs that are there and that no worker takes."""
    notes: tuple[str, ...] = ()
    """What the user may want to change."""

    def __str__(self) -> str:
        """Workers and actors as a table, with what stays idle and the notes."""
        rows = [("worker", text_range(self.min_workers, self.workers), self.cpus, self.gpus, self.threads)]
        rows.append(("loader", f"{self.workers} x {self.loaders}", self.loader_cpus, 0, 1))
        if self.validation_actors:
            actors = f"{self.workers} x {VALIDATION_POOLS} x {self.validation_actors}"
            rows.append(("validation", actors, self.validation_cpus, 0, 1))
        return resource_table(self.name, rows, idle_gpus=self.idle_gpus, notes=self.notes)


def plan_training(name: str, batch_size: int, machine: Machine, cluster: Cluster, *, validates: bool) -> TrainingPlan:
    """Plans a training.

    It takes the most workers that divide the batch, at most one a GPU, without GPUs one a node; each worker's actors
    get what CPUs are left. Workers and actors fit the nodes together, wherever Ray puts them.

    Args:
        name: the training's, for messages.
        batch_size: images of all workers together.
        machine: the nodes.
        cluster: what it sets is taken as it is, what is null is planned.
        validates: a stream of validation images runs beside that of the crops.

    Raises:
        DoesNotFit: if it doesn't.
    """
    on_gpus = uses_gpus(cluster.gpus_per_train_worker, machine, option="cluster.gpus_per_train_worker")
    gpus = (cluster.gpus_per_train_worker or 1) if on_gpus else 0
    if cluster.train_workers is not None:
        _check_workers(name, batch_size, cluster.train_workers)
    if on_gpus:
        workers, cpus = _gpu_workers(name, batch_size, machine, cluster.train_workers, gpus)
    else:
        workers, cpus = _cpu_workers(batch_size, machine, cluster.train_workers)
    min_workers = cluster.min_train_workers or workers
    if min_workers > workers:
        raise DoesNotFit(
            f"cluster.min_train_workers={min_workers} is more than the {workers} workers of {name} on {machine}; "
            "leave cluster.min_train_workers null, lower it, or add nodes"
        )
    idle_gpus = max(0, sum(node.minimum * int(node.gpus) for node in machine.nodes) - math.ceil(workers * gpus))
    share = machine.cpus / workers
    wanted = int(share - cpus) if on_gpus else math.ceil(cpus / CPUS_PER_LOADER)
    by_memory = sum(node.maximum * node.memory for node in machine.nodes) / workers - WORKER_MEMORY
    loaders = max(1, min(MAX_LOADERS, wanted, int(by_memory // LOADER_MEMORY)))
    validation_actors = max(1, loaders // 4) if validates else 0
    beside = loaders + VALIDATION_POOLS * validation_actors
    part = next(part for part in _PARTS if _slots(machine, workers, cpus, part) >= workers * beside)
    return TrainingPlan(
        name=name,
        workers=workers,
        min_workers=min_workers,
        cpus=cpus,
        gpus=gpus,
        threads=max(1, int(cpus)),
        loaders=loaders,
        loader_cpus=part,
        validation_actors=validation_actors,
        validation_cpus=part if validates else 0,
        idle_gpus=idle_gpus,
        notes=tuple(_notes(batch_size, workers, idle_gpus, cluster)),
    )


def _check_workers(name: str, batch_size: int, workers: int) -> None:
    if batch_size % workers:
        raise DoesNotFit(
            f"cluster.train_workers={workers} needs a batch that it divides, {name} has batch_size={batch_size}; leave "
            f"cluster.train_workers null, or set one of {_divisors(batch_size)}, or another batch_size"
        )


def _divisors(batch_size: int) -> list[int]:
    return [number for number in range(1, batch_size + 1) if batch_size % number == 0]


def _gpu_workers(name: str, batch_size: int, machine: Machine, asked: int | None, gpus: float) -> tuple[int, float]:
    """Workers, and CPUs of each."""
    if gpus < 1 and (asked or 1) > 1:
        raise DoesNotFit(
            f"cluster.gpus_per_train_worker={gpus:g} with cluster.train_workers={asked}: workers that train together "
            "need whole GPUs (NCCL has one worker a GPU); set cluster.gpus_per_train_worker to null, or one worker"
        )
    each = math.ceil(gpus)
    slots = sum(node.maximum * (int(node.gpus) // each) for node in machine.nodes)
    if (asked or 1) > slots:
        raise DoesNotFit(
            f"cluster.train_workers={asked} with {gpus:g} GPUs each in {name}: there is room for {slots} on {machine}; "
            "leave cluster.train_workers null, lower it, or add nodes"
        )
    workers = asked or (1 if gpus < 1 else max(number for number in _divisors(batch_size) if number <= slots))
    # Half of a node's CPUs at most: the other half loads.
    room = min(node.cpus / 2 / min(workers, int(node.gpus) // each) for node in machine.nodes if node.gpus >= each)
    return workers, next(part for part in _PARTS if part <= room)


def _cpu_workers(batch_size: int, machine: Machine, asked: int | None) -> tuple[int, float]:
    """Workers, and CPUs of each: as many as keep the most threads at work."""
    num_nodes = sum(node.maximum for node in machine.nodes if node.cpus >= 1)
    numbers = [asked] if asked else [number for number in _divisors(batch_size) if number <= num_nodes]
    workers = max(numbers, key=lambda number: (number * _cpus_of_each(number, machine), -number))
    cpus = _cpus_of_each(workers, machine)
    if not cpus:
        raise DoesNotFit(
            f"cluster.train_workers={asked} is more than {machine} can hold; leave cluster.train_workers null, lower "
            "it, or add nodes"
        )
    return workers, cpus


def _cpus_of_each(workers: int, machine: Machine) -> float:
    """The most CPUs that so many equal workers can have; 0 where they don't fit."""

    def fit(cpus: float) -> bool:
        usable = [(node.maximum, int(node.cpus)) for node in machine.nodes]
        return sum(number * int((has - _for_loaders(has)) / cpus) for number, has in usable) >= workers

    most = int(max(node.cpus for node in machine.nodes))
    return next((cpus for cpus in (*range(most, 1, -1), *_PARTS[:-1]) if fit(cpus)), 0)


def _for_loaders(cpus: int) -> int:
    return max(1, cpus // LOADER_SHARE) if cpus > 1 else 0


def _slots(machine: Machine, workers: int, cpus: float, part: float) -> float:
    """Actors of that size that fit beside the workers, however Ray spreads those."""
    if not part:
        return math.inf
    # In whole parts: 4 / 0.05 must be 80.
    in_nodes = sum(node.maximum * int(node.cpus / part + 1e-6) for node in machine.nodes)
    return in_nodes - workers * math.ceil(cpus / part - 1e-6)


def _notes(batch_size: int, workers: int, idle_gpus: int, cluster: Cluster) -> Iterator[str]:
    if not idle_gpus:
        return
    if cluster.gpus_per_train_worker == 0:
        yield f"GPUs that stay idle: {idle_gpus}, as cluster.gpus_per_train_worker=0 trains on CPUs"
    elif cluster.train_workers is not None:
        yield f"GPUs that stay idle: {idle_gpus}, as cluster.train_workers is {workers}"
    else:
        yield (
            f"GPUs that stay idle: {idle_gpus}, as the workers share a batch of {batch_size}, and {workers} is the "
            "largest number that divides it and has its GPUs; another batch_size would use more"
        )
