"""Stops a stream as soon as too many of its rows have failed, not at its end."""

from typing import Any

import ray

from raypipe.config import Budget


class BudgetExceeded(RuntimeError):  # noqa: N818 - the standard term
    """More rows failed than the config allows."""


def allowed_rows(budget: Budget, num_rows: int) -> int:
    """How many of the rows may fail."""
    return int(max(budget.max_fraction * num_rows, budget.max_rows))


class QuarantineCount:
    """Counts quarantined rows over all writers of a stream.

    Args:
        allowed: rows that may fail.
        known: rows of earlier runs.
    """

    def __init__(self, allowed: int, known: int) -> None:
        self.allowed = allowed
        self.known = known
        self.shards: dict[str, int] = {}

    def add(self, shard: str, num_rows: int) -> str | None:
        """Takes note of a shard, once however often it is written; what is wrong when it is one too many."""
        self.shards[shard] = num_rows
        total = self.known + sum(self.shards.values())
        return f"{total} rows are in quarantine, allowed are {self.allowed}" if total > self.allowed else None


def start_count(budget: Budget, *, num_rows: int, known: int) -> Any:
    """The actor of a stream."""
    return ray.remote(num_cpus=0)(QuarantineCount).remote(allowed_rows(budget, num_rows), known)
