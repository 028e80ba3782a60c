import pytest

from raypipe.cluster.tables import resource_table, text_range


@pytest.mark.parametrize(("minimum", "maximum", "text"), [(1, 8, "1-8"), (8, 8, "8"), (0, 1, "0-1")])
def test_a_range_of_one_number_is_that_number(minimum: int, maximum: int, text: str) -> None:
    assert text_range(minimum, maximum) == text


def test_columns_are_as_wide_as_their_longest_cell() -> None:
    rows = [("fetch", "1-16", 0.05, 0, 1), ("a pool of networks", "8", 2.0, 0.3333, 12)]
    assert resource_table("masks", rows, idle_gpus=3, notes=["first", "second"]).splitlines() == [
        "masks",
        "  pool                actors  CPUs  GPUs    threads",
        "  fetch               1-16    0.05  0       1",
        "  a pool of networks  8       2     0.3333  12",
        "  idle GPUs: 3",
        "  first",
        "  second",
    ]


def test_without_pools_the_header_stands_alone() -> None:
    assert resource_table("none", [], idle_gpus=0, notes=[]).splitlines() == [
        "none",
        "  pool  actors  CPUs  GPUs  threads",
        "  idle GPUs: 0",
    ]
