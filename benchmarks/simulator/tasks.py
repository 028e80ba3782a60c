"""Stands for `streams.tasks.Tasks` and Ray's tasks; parts that aren't run for real repeat what an earlier one cost."""

from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
from ray import cloudpickle

from raypipe.data.rows import Part
from raypipe.outputs.ledger import level_of
from raypipe.outputs.sink import WRITTEN
from raypipe.streams.books import fold_files
from raypipe.streams.settle import Settled, settle
from simulator.events import Driver
from simulator.meter import METER, MODEL, Cost

NAMES = {"settle": "settle a part", "fold_files": "fold indexes"}
TASK_SECONDS = 0.02
"""From a task's start to its first line, where a process is free, and from its last to the driver's knowing."""

_REMEMBERED = 1000
"""Pieces of work of a kind: some blocks of a part read a shard, others go on with it."""


class Costs:
    """What real pieces of work have cost, for those that repeat them."""

    def __init__(self, real: Callable[[str], bool]) -> None:
        """Remembers nothing yet.

        Args:
            real: whether a part, by its name, is run for real.
        """
        self.real = real
        self.known: dict[tuple[Any, ...], deque[Cost]] = {}
        self.counts: dict[tuple[str, str], Counter[str]] = {}
        """Rows that repeated parts have finished and quarantined, by folder and part."""
        self.settled: set[tuple[str, str]] = set()
        """Folders and parts that were settled: to settle them again is little work."""

    def note(self, key: tuple[Any, ...], cost: Cost) -> None:
        """Remembers what a kind of work has cost."""
        self.known.setdefault(key, deque(maxlen=_REMEMBERED)).append(cost)

    def again(self, key: tuple[Any, ...]) -> Cost:
        """A cost of a kind of work, one after the other; its requests are made once more.

        Args:
            key: what is done, the stream's folder, and details, of which others will do.
        """
        similar = (self.known[known] for known in self.known if known[:2] == key[:2])
        costs = self.known.get(key) or next(similar, None)
        if costs is None:
            raise LookupError(f"nothing like {key} has been run for real: run more parts for real")
        cost = costs[0]
        costs.rotate(-1)
        METER.repeat(cost)
        return cost

    def written(self, folder: str, rows: "Repeated", number: int) -> pa.Table:
        """What a writer says of a block that wasn't written."""
        counts = self.counts.setdefault((folder, rows.part), Counter())
        failed = rows.failed
        counts.update(finished=rows.rows - failed, quarantined=failed)
        row = {
            "part": rows.part,
            "part_todo": rows.todo,
            "num_finished": rows.rows - failed,
            "num_quarantined": failed,
            "index": f"{folder}/index/{rows.part}/0-1-{number:016d}.parquet",
            "quarantine": f"{folder}/quarantine/{rows.part}/0-1-{number:016d}.parquet" if failed else None,
        }
        return pa.Table.from_pylist([row], schema=WRITTEN)

    def call(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> tuple[Any, Cost]:
        """Runs a task's function, or repeats one like it."""
        plain = function.func if isinstance(function, partial) else function
        name = NAMES.get(plain.__name__, "look for moved rows")
        part = next((each.name for each in arguments if isinstance(each, Part)), arguments[2:3] and arguments[2])
        key: tuple[Any, ...] = (name, "")
        if plain is settle:
            assert isinstance(function, partial)
            folder = function.args[0].folder
            key = (name, folder, (folder, part) in self.settled)
            self.settled.add((folder, part))
        elif plain is fold_files:
            key = (name, arguments[0], arguments[1], level_of(arguments[3][0]))
        if not part or self.real(part):
            with METER.process(name) as cost:
                result = function(*arguments)
            if part:
                self.note(key, cost)
            return result, cost
        cost = self.again(key)
        if plain is settle:
            counts = self.counts[key[1], part]
            return Settled(counts.total(), counts["finished"], counts["quarantined"]), cost
        assert plain is fold_files, plain
        folder, kind, _, uris, run = arguments
        return (kind, part, f"{folder}/{kind}/{part}/{key[3] + 1}-{run}-{uris[0][-24:-8]}.parquet"), cost


@dataclass(frozen=True)
class Repeated:
    """A block of a part that isn't run for real."""

    part: str
    rows: int
    failed: int
    """Of its rows, in error."""
    todo: int
    """Rows of its part."""


class ModelTasks:
    """Runs tasks when they are submitted and has their results at their virtual time."""

    def __init__(self, driver: Driver, costs: Costs, *, inline: bool, cpus: int = 0) -> None:  # noqa: ARG002 - the model has no CPUs
        self.driver, self.costs, self.inline = driver, costs, inline
        self.started: deque[tuple[float, Any]] = deque()

    def submit(self, function: Callable[..., Any], *arguments: Any) -> None:
        """As `Tasks.submit`: the driver pickles what a task gets, the task's own time is a worker's."""
        if self.inline:
            self.started.append((0.0, function(*arguments)))
            return
        cloudpickle.dumps((function, arguments))
        self.driver.sync()
        with METER.process(MODEL):
            result, cost = self.costs.call(function, arguments)
        self.started.append((self.driver.now + TASK_SECONDS + cost.seconds, result))

    def results(self, *, most_running: int = 0) -> Iterator[Any]:
        """As `Tasks.results`."""
        while len(self.started) > (0 if self.inline else most_running):
            done, result = self.started.popleft()
            self.driver.sync()
            self.driver.now = max(self.driver.now, done)
            yield result
