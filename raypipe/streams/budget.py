"""Stops a stream as soon as too many of its rows have failed, not at its end."""

from raypipe.config import Budget


class BudgetExceeded(RuntimeError):  # noqa: N818 - the standard term
    """More rows failed than the config allows."""


def allowed_rows(budget: Budget, num_rows: int) -> int:
    """How many of the rows may fail."""
    return int(max(budget.max_fraction * num_rows, budget.max_rows))
