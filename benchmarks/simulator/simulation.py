"""Runs streams on a cluster that isn't there: `run_stream` and all below it are raypipe's own, but for Ray."""

import ctypes
import gc
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from types import FunctionType, ModuleType
from typing import Any
from unittest.mock import patch

import numpy as np
import psutil
import pyarrow as pa

from raypipe.cluster.machines import parse_machine
from raypipe.config import Budget, RunConfig
from raypipe.data.parts import ROWS_PER_PART, open_manifest
from raypipe.outputs.records import row_digests
from raypipe.outputs.sink import write_shard
from raypipe.pipelines.context import plan_pools
from raypipe.results import StreamSummary
from raypipe.schema import ROW_DIGEST
from raypipe.streams import books, run, settle, tasks
from raypipe.streams.plan import Plan
from simulator.events import Driver
from simulator.execution import Execution
from simulator.meter import METER
from simulator.setting import Killed, Seen, Setting
from simulator.store import Speed, Store, mount
from simulator.tasks import Costs, ModelTasks
from simulator.workload import ROW_BYTES, finished, manifest_rows, rows_of, write_manifest

DRIVER = "driver"
OUT = "sim://bucket/out"
MOST_COUNTED = 20_000_000
"""Rows of which each is counted by itself."""


@dataclass
class Leg:
    """One run of a stream, from its start to its end."""

    name: str
    setting: Setting
    seen: Seen
    cards: int
    summary: StreamSummary | None = None
    """None where it was killed."""
    seconds: float = 0.0
    """Virtual ones."""
    cpu: float = 0.0
    """Seconds of raypipe's thread in the driver."""
    scheduling: float = 0.0
    """Seconds of Ray Data's thread in the driver."""
    growth: int = 0
    """Bytes by which this process grew, what the simulator keeps included."""
    objects: int = 0
    """Bytes of what the driver keeps at most: its run, its source, its books."""
    requests: Counter[tuple[str, str]] | None = None
    bytes: Counter[tuple[str, str]] | None = None

    @property
    def work(self) -> float:
        """Seconds of the cards' work, if none was ever idle."""
        return self.seen.busy / self.cards

    @property
    def idle(self) -> float:
        """Share of the run that the cards were idle."""
        return 1 - self.work / self.seconds

    @property
    def tail(self) -> float:
        """Seconds from the last card's work to the end."""
        return self.seen.begun + self.seconds - self.seen.last_card


class Simulation:
    """A set, a store and a cluster."""

    def __init__(
        self,
        setting: Setting,
        *,
        rows: int,
        speed: Speed,
        rows_per_part: int = ROWS_PER_PART,
        real_parts: int | None = None,
        row_bytes: Mapping[str, int] = ROW_BYTES,
        looks: int = 8,
    ) -> None:
        """Makes a manifest.

        Args:
            setting: the cluster.
            rows: of the manifest.
            speed: of the store.
            rows_per_part: of the manifest.
            real_parts: parts that are run for real, the first eight and then every so many; None runs all.
            row_bytes: of a row's output, by the stream's name.
            looks: at the driver's memory in each run.
        """
        self.setting, self.num_rows, self.row_bytes, self.looks = setting, rows, row_bytes, looks
        self.store = Store(speed, row_bytes=lambda path: row_bytes["seeds" if "/seeds/" in path else "masks"])
        mount(self.store)
        write_manifest(self.store, "bucket/manifest", rows=rows, rows_per_part=rows_per_part)
        number = -(-rows // rows_per_part)
        every = max(1, number // (real_parts or number))
        self.costs = Costs(
            lambda name: (index := int(name[-5:]) if name[-5:].isdigit() else 0) < 8 or not index % every
        )
        self.now = 0.0
        self.counts: dict[str, np.ndarray] = {}

    def __enter__(self) -> "Simulation":
        return self

    def __exit__(self, *_: object) -> None:
        self.store.close()

    def open(self) -> float:
        """Finds the manifest's parts as a run does; returns the virtual seconds."""
        with METER.process(DRIVER) as cost:
            self.manifest = open_manifest("sim://bucket/manifest")
        self.now += cost.seconds
        return cost.seconds

    def run(self, plan: Plan, *, kill: float = float("inf"), name: str = "") -> Leg:
        """Runs a stream.

        Args:
            plan: what is computed.
            kill: rows after which the driver is killed.
            name: of the run.
        """
        setting = self.setting
        machine = parse_machine(
            f"nodes={setting.nodes},cpus={setting.cpus},gpus={setting.gpus},memory={setting.memory}"
        )
        pools, planned = plan_pools(plan, machine, RunConfig(manifest="-", out="-"))
        rows = rows_of(self.manifest.parts)
        seen = Seen(begun=self.now)
        if self.num_rows <= MOST_COUNTED:
            # Filled, not only reserved: what it takes isn't the driver's.
            seen.times = self.counts.setdefault(plan.name, np.full(self.num_rows, 1, np.uint8) - np.uint8(1))
        leg = Leg(name or plan.name, setting, seen, setting.nodes * setting.gpus)
        before = METER.total.requests.copy(), METER.total.bytes.copy()
        size = run.rows_per_block(rows.most)
        look = _Look(max(1, -(-self.num_rows // size) // self.looks))
        seen.look = look.at
        with METER.process(DRIVER) as cost:
            driver = Driver(cost, now=self.now)
            sizes = {part.name: part.num_rows for part in rows.parts}
            execution = Execution(setting, self.store, driver, self.costs, seen, sizes=sizes, kill=kill)
            settings = run.Settings(out=OUT, budget=Budget())
            with _in_place_of_ray(execution, partial(ModelTasks, driver, self.costs), self._shard_bytes(plan, size)):
                with suppress(Killed):
                    _, leg.summary = run.run_stream(
                        plan, rows, settings, lambda: list(zip(pools, planned.pools, strict=True))
                    )
                driver.sync()
        leg.seconds, self.now = driver.now - self.now, driver.now
        leg.cpu, leg.scheduling = cost.cpu, driver.scheduling
        leg.growth, leg.objects = look.growth, look.objects
        leg.requests = METER.total.requests - before[0]
        leg.bytes = METER.total.bytes - before[1]
        return leg

    def _shard_bytes(self, plan: Plan, rows_per_block: int) -> int:
        """What stands for `settle.SHARD_BYTES`: an index names the bytes that a shard really has here."""
        rows = manifest_rows(0, rows_per_block)
        digests = row_digests(rows, ["image_uri"])
        schema = plan.schema.append(pa.field(ROW_DIGEST, pa.string()))
        block = finished(rows.append_column(ROW_DIGEST, digests), schema, failing=0)
        entries = write_shard("memory://scale", "shards", "any", block.select(schema.names).cast(schema))
        real = entries["size"][0].as_py()
        return int(settle.SHARD_BYTES * real / (real + rows_per_block * self.row_bytes[plan.name]))


@contextmanager
def _in_place_of_ray(execution: Execution, model: Any, shard_bytes: int) -> Iterator[None]:
    places: list[tuple[ModuleType, str, Any]] = [
        (run, "execute", execution),
        (run, "watch_start", lambda *_, **__: nullcontext()),
        (settle, "SHARD_BYTES", shard_bytes),
        *((module, "Tasks", model) for module in (run, books, tasks)),
    ]
    with ExitStack() as stack:
        for module, name, value in places:
            stack.enter_context(patch.object(module, name, value))
        yield


class _Look:
    """Looks at this process's memory now and then."""

    def __init__(self, every: int) -> None:
        self.every, self.next = every, every
        self.begin, self.growth, self.objects = _resident(), 0, 0

    def at(self, number: int) -> None:
        """Looks if it is time."""
        if number >= self.next:
            self.next += self.every
            self.growth = max(self.growth, _resident() - self.begin)
            self.objects = max(self.objects, _kept())


def _resident() -> int:
    gc.collect()
    pa.default_memory_pool().release_unused()
    ctypes.CDLL(None).malloc_trim(0)
    return int(psutil.Process().memory_info().rss)


def _kept() -> int:
    """Bytes of the driver's objects and all that they refer to."""
    found = [each for each in gc.get_objects() if type(each) in (run._Run, books.Books)]
    seen: set[int] = set()
    total = 0
    while found:
        each = found.pop()
        if id(each) in seen or isinstance(each, type | ModuleType | Execution | ModelTasks | partial):
            continue
        seen.add(id(each))
        total += sys.getsizeof(each)
        found += [each.__closure__ or ()] if isinstance(each, FunctionType) else gc.get_referents(each)
    return total
