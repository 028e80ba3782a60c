"""When the workers of a training save its state: all after the same step, without waiting for one another at each."""

import time
from collections.abc import Callable
from typing import Any

_LOOK = 5.0
"""Seconds between two looks at the clock and at notices of preemption: a look waits for all workers."""


class SaveTimer:
    """Tells all workers alike that a state is due: every `seconds`, and at once where a node is to be taken away.

    Worker 0 has the clock. The workers meet every few seconds, after a number of steps that worker 0 names.
    """

    def __init__(self, *, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._look = min(_LOOK, seconds / 4)
        self._clock = clock
        self._steps = self._left = 1
        self._leaving: frozenset[str] = frozenset()
        self._looked = self._saved = clock()

    def is_due(self) -> bool:
        """Says whether a state is to be saved now; every worker calls this after every step."""
        self._left -= 1
        if self._left:
            return False
        now = self._clock()
        spent = max(now - self._looked, 1e-9)
        told = _agreed(
            {
                # The next look would be too late.
                "late": now - self._saved + self._look > self._seconds,
                # A pause makes steps look slow, and a few fast ones say little: at most twice as many as before.
                "steps": max(1, min(2 * self._steps, int(self._steps * self._look / spent))),
            }
        )
        self._steps = self._left = told["steps"]
        self._looked = now
        leaving = _nodes_that_leave()
        noticed = not leaving <= self._leaving
        self._leaving |= leaving
        return bool(told["late"] or noticed)

    def saved(self) -> None:
        """Counts from now on; every worker calls this once it has saved."""
        self._saved = self._looked = self._clock()
        self._left = self._steps


def _agreed(word: dict[str, Any]) -> dict[str, Any]:
    """What worker 0 says."""
    from ray.train.collective import broadcast_from_rank_zero  # the step of a training needs no Ray

    told: dict[str, Any] = broadcast_from_rank_zero(word)
    return told


def _nodes_that_leave() -> frozenset[str]:
    """Nodes with workers that are said to be taken away soon; the same for every worker."""
    import ray.train

    notice = ray.train.get_preemption_info()
    return frozenset(notice.preempted_node_ids if notice else ())
