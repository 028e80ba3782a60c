import pytest

from raypipe.config import Budget
from raypipe.streams.budget import allowed_rows


@pytest.mark.parametrize(
    ("fraction", "rows", "num_rows", "allowed"),
    [
        (0.01, 100, 20_000, 200),
        (0.01, 100, 10_000, 100),
        (0.01, 100, 50, 25),
        (0.01, 100, 1, 0),
        (0.01, 100, 199, 99),
        (0.01, 100, 201, 100),
        (0.9, 100, 50, 45),
        (0.5, 0, 3, 1),
        (0, 0, 1000, 0),
        (1, 0, 7, 7),
        (0.5, 4, 0, 0),
    ],
)
def test_the_larger_of_both_limits_counts_up_to_half_of_a_small_set(
    fraction: float, rows: int, num_rows: int, allowed: int
) -> None:
    assert allowed_rows(Budget(max_fraction=fraction, max_rows=rows), num_rows) == allowed


def test_a_share_of_whole_rows_is_not_cut_by_rounding() -> None:
    """0.29 · 100 is 28.999999999999996."""
    allowed = [allowed_rows(Budget(max_fraction=percent / 100, max_rows=0), 100) for percent in range(101)]
    assert allowed == list(range(101))
