"""What a piece of real code costs in virtual time: the CPU that it takes here, and the requests that it makes."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

THREADS_BESIDE = 10
"""Requests of other threads than the main one, such as those that read footers or delete files, go on beside each
other: sixteen threads share ten connections, botocore's default."""

MODEL, LEASE = "model", "lease"


@dataclass
class Cost:
    """Of one virtual process."""

    name: str
    cpu: float = 0.0
    """Seconds that the code takes on this machine, and those of the payload that it doesn't really handle."""
    store: float = 0.0
    """Seconds that it waits for the store."""
    requests: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By process and kind of request."""
    bytes: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """All of it: a process does one after the other."""
        return self.cpu + self.store


class Meter:
    """Measures virtual processes, one within the other: what the inner one takes isn't the outer one's."""

    def __init__(self) -> None:
        self.total = Cost("total")
        """Requests and bytes of all."""
        self._stack: list[Cost] = []
        self._mark = 0.0
        self._lock = threading.Lock()

    @contextmanager
    def process(self, name: str) -> Iterator[Cost]:
        """Measures a block."""
        self.lap()
        cost = Cost(name)
        self._stack.append(cost)
        try:
            yield cost
        finally:
            self.lap()
            self._stack.pop()

    def lap(self) -> None:
        """Books the CPU time since the last call."""
        now = time.process_time()
        if self._stack:
            self._stack[-1].cpu += now - self._mark
        self._mark = now

    def request(self, kind: str, *, seconds: float, number: int = 1, size: int = 0, cpu: float = 0.0) -> None:
        """Books requests that the present process makes.

        Args:
            kind: GET, PUT, HEAD, LIST or DELETE.
            seconds: that it waits.
            number: of requests.
            size: bytes that travel.
            cpu: seconds that it would work on a payload of which there is only the size.
        """
        with self._lock:
            if threading.current_thread().name == "lease":
                self._add(self.total, LEASE, kind, number, size)
                return
            cost = self._stack[-1] if self._stack else Cost(MODEL)
            if cost.name == MODEL:
                return
            beside = threading.current_thread() is not threading.main_thread()
            cost.store += seconds / THREADS_BESIDE if beside else seconds
            cost.cpu += cpu
            self._add(cost, cost.name, kind, number, size)
            self._add(self.total, cost.name, kind, number, size)

    def repeat(self, cost: Cost) -> None:
        """Books the requests of a process like an earlier one."""
        self.total.requests.update(cost.requests)
        self.total.bytes.update(cost.bytes)

    @staticmethod
    def _add(cost: Cost, process: str, kind: str, number: int, size: int) -> None:
        cost.requests[process, kind] += number
        cost.bytes[process, kind] += size


METER = Meter()
"""Of the one simulation that a process runs at a time."""
