"""Virtual time: what happens next, and the driver, which does one thing after the other."""

import heapq
from collections.abc import Callable
from itertools import count

from simulator.meter import METER, Cost


class Events:
    """What will happen, in the order of time."""

    def __init__(self) -> None:
        self.now = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()

    def __bool__(self) -> bool:
        return bool(self._heap)

    def at(self, time: float, call: Callable[[], None]) -> None:
        """Calls a function at a time."""
        heapq.heappush(self._heap, (max(time, self.now), next(self._numbers), call))

    def step(self) -> None:
        """Lets the next thing happen."""
        self.now, _, call = heapq.heappop(self._heap)
        call()


class Driver:
    """A driver's process: raypipe's thread, and Ray Data's beside it, which share one interpreter."""

    def __init__(self, cost: Cost, *, now: float) -> None:
        """Begins.

        Args:
            cost: the meter's, of what raypipe's thread does.
            now: virtual time.
        """
        self.cost, self.now = cost, now
        self.free = now
        """When Ray Data's thread has done all that it was given."""
        self.scheduling = 0.0
        """Seconds that Ray Data's thread was given."""
        self._booked = cost.cpu, cost.store

    def sync(self) -> float:
        """Lets the time pass that raypipe's thread has taken since the last call; returns the CPU's part of it."""
        METER.lap()
        cpu, store = self.cost.cpu - self._booked[0], self.cost.store - self._booked[1]
        self._booked = self.cost.cpu, self.cost.store
        self.now += cpu + store
        return cpu

    def occupy(self, now: float, seconds: float) -> float:
        """Gives Ray Data's thread something to do; returns when it is done."""
        self.free = max(self.free, now) + seconds
        return self.free

    def schedule(self, now: float, seconds: float) -> float:
        """The same, for a block and an operator."""
        self.scheduling += seconds
        return self.occupy(now, seconds)
