"""Stands for `streams.execute` and Ray Data: blocks flow through operators, each of which costs the driver time."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from raypipe.cluster.resources import PoolPlan
from raypipe.data.blocks import pack, unpack
from raypipe.outputs.sink import ShardWriter
from raypipe.streams.execute import CALLS_PER_ACTOR, PARTS_AT_A_TIME, Parts
from raypipe.streams.plan import Pool
from simulator.events import Driver, Events
from simulator.meter import METER, MODEL, Cost
from simulator.setting import Killed, Seen, Setting
from simulator.store import Store
from simulator.tasks import TASK_SECONDS, Costs, Repeated
from simulator.workload import finished, num_failing

READ, WRITE, FETCH = "read a part", "write a block", "fetch images"
AHEAD = 2
"""An operator stops while the next one has so many times the blocks before it that it can run."""

Block: TypeAlias = pa.Table | Repeated


class _Station:
    """A pool's slots and the blocks before them."""

    def __init__(self, kind: str, slots: int) -> None:
        self.kind, self.slots = kind, slots
        self.queue: deque[Block] = deque()
        self.running = 0
        self.coming = 0
        """Blocks that are before it or on the way."""

    @property
    def has_room(self) -> bool:
        return self.coming < AHEAD * self.slots


class Execution:
    """One run of blocks through pools."""

    def __init__(
        self,
        setting: Setting,
        store: Store,
        driver: Driver,
        costs: Costs,
        seen: Seen,
        *,
        sizes: Mapping[str, int],
        kill: float,
    ) -> None:
        """Prepares a run.

        Args:
            setting: the cluster.
            store: its speed counts for images.
            driver: of the run.
            costs: of what is repeated.
            seen: takes notes.
            sizes: rows of each part, in the parts' order.
            kill: rows after which the driver is killed.
        """
        self.setting, self.store, self.driver = setting, store, driver
        self.costs, self.seen, self.sizes, self.kill = costs, seen, sizes, kill
        self.starts = dict(zip(sizes, accumulate(sizes.values(), initial=0), strict=False))
        self.events = Events()
        self.out: deque[tuple[float, pa.Table]] = deque()
        self.idle_sources: deque[Iterator[tuple[Block | None, float]]] = deque()

    def __call__(
        self,
        rows: Sequence[pa.Table] | Parts,
        pools: Sequence[tuple[Pool, PoolPlan]],
        *,
        rows_per_block: int,
        writer: ShardWriter,
        row_timeout: float,  # noqa: ARG002 - no process hangs here
    ) -> Iterator[pa.Table]:
        """As `execute`."""
        self.writer, self.rows_per_block = writer, rows_per_block
        self.stations = [_Station(pool.kind, plan.max_actors) for pool, plan in pools]
        for station, (_, plan) in zip(self.stations, pools, strict=True):
            if station.kind == "device":
                self.cards = np.full(plan.max_actors, self.driver.now + self.setting.start)
                self.calls = np.zeros(plan.max_actors, int)
                station.slots = CALLS_PER_ACTOR * plan.max_actors
        self.driver.sync()
        self.driver.free = self.events.now = self.driver.now
        with METER.process(MODEL):
            self._begin(rows)
        while True:
            with METER.process(MODEL):
                while not self.out and self.events:
                    self.events.step()
                if not self.out:
                    break
                time, written = self.out.popleft()
                self.driver.now = max(self.driver.now, time)
                if self.seen.first is None:
                    self.seen.first = time
                self.seen.look(self.seen.blocks)
            yield written
            spent = self.driver.sync()
            self.events.at(self.driver.now - spent, partial(self._occupy, spent))
            if self.seen.rows >= self.kill:
                self.seen.busy -= float(np.maximum(self.cards - self.driver.now, 0).sum())  # was given, not done
                self.seen.last_card = self.driver.now
                raise Killed
        self.driver.now = max(self.driver.now, self.events.now)

    def _occupy(self, seconds: float) -> None:
        self.driver.occupy(self.events.now, seconds)

    def _begin(self, rows: Sequence[pa.Table] | Parts) -> None:
        if not isinstance(rows, Parts):
            self.stations[0].coming += len(rows)
            for table in rows:
                self._through_driver(partial(self._arrive, 0, table))
            return
        self.parts, self.names = rows, deque(rows.names)
        for _ in range(min(PARTS_AT_A_TIME, len(rows.names))):
            self._next_part()

    def _next_part(self) -> None:
        if self.names:
            steps = self._steps(self.names.popleft())
            self.events.at(self.events.now + TASK_SECONDS, partial(self._step, steps))

    def _steps(self, name: str) -> Iterator[tuple[Block | None, float]]:
        """Blocks of a part and what each has cost; None at the end."""
        folder = self.writer.folder
        if not self.costs.real(name):
            yield from self._repeated_steps(folder, name)
            return
        tables, number, todo = self.parts.read(name), 0, 0
        while True:
            with METER.process(READ) as cost:
                table = next(tables, None)
                if table is not None:
                    table = unpack(pack(table))
            kind = "end" if table is None else "first" if number == 0 else "next"
            if kind == "first":
                todo = table["part_todo"][0].as_py()
            # A part of which some is done isn't like the others.
            if number or table is None or todo == self.sizes[name]:
                self.costs.note((READ, folder, "done" if kind == "end" and not number else kind), cost)
            number += 1
            yield table, cost.seconds
            if table is None:
                return

    def _repeated_steps(self, folder: str, name: str) -> Iterator[tuple[Block | None, float]]:
        counts = self.costs.counts.get((folder, name))
        done = counts.total() if counts else 0  # its first rows, as nobody knows which
        todo = self.sizes[name] - done
        for start in range(0, todo, self.rows_per_block):
            rows = min(self.rows_per_block, todo - start)
            seconds = self.costs.again((READ, folder, "next" if start else "first")).seconds
            failed = num_failing(self.starts[name] + done + start, rows, self.setting.failing)
            yield Repeated(name, rows, failed, todo), seconds
        yield None, self.costs.again((READ, folder, "end" if todo else "done")).seconds

    def _step(self, steps: Iterator[tuple[Block | None, float]]) -> None:
        if not self.stations[0].has_room:
            self.idle_sources.append(steps)
            return
        self.stations[0].coming += 1
        block, seconds = next(steps)
        self.events.at(self.events.now + seconds, partial(self._stepped, steps, block))

    def _stepped(self, steps: Iterator[tuple[Block | None, float]], block: Block | None) -> None:
        if block is None:
            self.stations[0].coming -= 1
            self._next_part()
            return
        # What Ray Data does to give each block to a task of its own is an operator, too.
        again = partial(self._through_driver, partial(self._arrive, 0, block))
        self._through_driver(lambda: self.events.at(self.events.now + TASK_SECONDS, again))
        self._step(steps)

    def _through_driver(self, call: Callable[[], None]) -> None:
        self.events.at(self.driver.schedule(self.events.now, self.setting.block), call)

    def _arrive(self, index: int, block: Block) -> None:
        if index == 0 and self.seen.first_read is None:
            self.seen.first_read = self.events.now
        self.stations[index].queue.append(block)
        self._start(index)

    def _start(self, index: int) -> None:
        station = self.stations[index]
        following = self.stations[index + 1] if index + 1 < len(self.stations) else None
        while station.queue and station.running < station.slots and (following is None or following.has_room):
            block = station.queue.popleft()
            station.running += 1
            station.coming -= 1
            if following is not None:
                following.coming += 1
            getattr(self, f"_{station.kind}")(index, block)
        if index:
            self._start(index - 1)
        while self.idle_sources and self.stations[0].has_room:
            self._step(self.idle_sources.popleft())

    def _end(self, index: int, block: Block) -> None:
        self.stations[index].running -= 1
        self._through_driver(partial(self._arrive, index + 1, block))
        self._start(index)

    def _fetch(self, index: int, block: Block) -> None:
        number = _rows(block)
        size = number * self.setting.image_bytes
        with METER.process(FETCH) as cost:
            METER.request("GET", seconds=self.store.speed.seconds(number, size), number=number, size=size)
        self.events.at(self.events.now + TASK_SECONDS + cost.seconds, partial(self._end, index, block))

    def _device(self, index: int, block: Block) -> None:
        card = int(np.lexsort((self.cards, self.calls))[0])
        work = self.setting.card * _rows(block)
        self.cards[card] = max(self.cards[card], self.events.now) + work
        self.calls[card] += 1
        self.seen.busy += work
        self.seen.last_card = max(self.seen.last_card, self.cards[card])

        def end() -> None:
            self.calls[card] -= 1
            self._end(index, block)

        self.events.at(self.cards[card], end)

    def _finish(self, index: int, block: Block) -> None:
        seconds = TASK_SECONDS + self.setting.core * _rows(block)
        self.events.at(self.events.now + seconds, partial(self._write, index, block))

    def _write(self, index: int, block: Block) -> None:
        self.seen.blocks += 1
        self.seen.rows += _rows(block)
        if isinstance(block, Repeated):
            cost = self.costs.again((WRITE, self.writer.folder))
            written = self.costs.written(self.writer.folder, block, self.seen.blocks)
        else:
            cost, written = self._written(block)
            self.costs.note((WRITE, self.writer.folder), cost)

        def end() -> None:
            self.stations[index].running -= 1
            self._through_driver(lambda: self.out.append((self.events.now, written)))
            self._start(index)

        self.events.at(self.events.now + cost.seconds, end)

    def _written(self, block: pa.Table) -> tuple[Cost, pa.Table]:
        if len(self.seen.times):
            np.add.at(self.seen.times, block["image_id"].cast(pa.int64()).to_numpy(), 1)
        table = finished(block, self.writer.schema, failing=self.setting.failing)
        with METER.process(WRITE) as cost:
            written = self.writer.write(table)
        return cost, written


def _rows(block: Block) -> int:
    return block.rows if isinstance(block, Repeated) else int(block.num_rows)
