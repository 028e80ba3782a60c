"""Finds out where processes can't be set up, such as load their networks: on one node, or on all of them."""

from collections import defaultdict
from dataclasses import dataclass

from raypipe.cluster.calls import Call

FAILED_STARTS = 3
"""Of a pool's processes on a node, without one that gets through, until the node counts as sick."""

FAILED_NODES = 2
"""Of a pool that no node gets through, until it is given up everywhere."""


@dataclass
class _Start:
    """A process that is being set up."""

    call: Call
    ended_by: str | None = None
    """What ended it, where it said so itself."""


class Starts:
    """The processes of one driver's streams that were set up, or are, or died over it."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], _Start] = {}
        self._failed: dict[tuple[str, str], int] = defaultdict(int)
        """By pool and node, since the last one that got through."""
        self._passed: set[tuple[str, str, str]] = set()
        """Job, pool and node of those that got through."""
        self._given_up: dict[str, str] = {}
        """Pools that no node gets through, with the reason."""

    def begin(self, call: Call) -> tuple[Call, str | None] | None:
        """Notes that a process begins; returns the one before that died over the same, and what it said."""
        before = self._open.get((call.job, call.block))
        self._open[call.job, call.block] = _Start(call)
        if before is None or before.call.number == call.number:
            return None
        return before.call, before.ended_by

    def hung(self, call: Call, reason: str) -> None:
        """Notes what a process is about to end itself for."""
        found = self._open.get((call.job, call.block))
        if found is not None and found.call.number == call.number:
            found.ended_by = reason

    def end(self, call: Call, *, passed: bool) -> None:
        """Notes that a process is set up, or isn't and lives on."""
        self._open.pop((call.job, call.block), None)
        if passed:
            self._passed.add((call.job, call.pool, call.node))
            self._failed.pop((call.pool, call.node), None)

    def died(self, call: Call, reason: str) -> str | None:
        """Counts a process that died over it; returns why its node is sick, if it is."""
        key = (call.pool, call.node)
        self._failed[key] += 1
        if self._failed[key] < FAILED_STARTS:
            return None
        failed = sum(number >= FAILED_STARTS for (pool, _), number in self._failed.items() if pool == call.pool)
        words = f"{reason} while it was set up for {call.pool}, {self._failed[key]} times in a row"
        if failed >= FAILED_NODES and not self._may_pass(call):
            self._given_up[call.pool] = f"{words}, and so it is on {failed} nodes and on none otherwise"
        return words

    def passed_elsewhere(self, call: Call) -> bool:
        """Whether the same was done on another node."""
        return any((job, pool) == (call.job, call.pool) and node != call.node for job, pool, node in self._passed)

    def _may_pass(self, call: Call) -> bool:
        """Whether the pool was set up anywhere, or is just tried on a node where nothing has failed."""
        return any(pool == call.pool for _, pool, _ in self._passed) or any(
            (start.call.job, start.call.pool) == (call.job, call.pool)
            and not self._failed.get((call.pool, start.call.node))
            for start in self._open.values()
        )

    def given_up(self) -> list[str]:
        """Why pools can't be set up anywhere."""
        return list(self._given_up.values())
