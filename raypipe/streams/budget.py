"""Stops a stream as soon as too many of its rows have failed, not at its end."""

from raypipe.config import Budget


class BudgetExceeded(RuntimeError):  # noqa: N818 - the standard term
    """More rows failed than the config allows."""


def allowed_rows(budget: Budget, num_rows: int) -> int:
    """How many of the rows may fail."""
    # 0.29 of 100 rows are 29, not 28.999999999999996.
    share = int(budget.max_fraction * num_rows + 1e-6)
    # Most of a small set are no few rows: what is made of the rest says nothing of the set.
    return max(share, min(budget.max_rows, num_rows // 2))
