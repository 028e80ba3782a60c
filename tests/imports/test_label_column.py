"""Labels as numbers: the same as with lists of texts, faster."""

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.imports.label_column import LabelColumn

ROWS = st.lists(st.none() | st.lists(st.sampled_from("abcd"), max_size=5), min_size=1, max_size=10)
TABLES = st.dictionaries(st.sampled_from("abcd"), st.none() | st.sampled_from("abxy"))


def column(rows: list[list[str] | None], chunks: int = 1) -> LabelColumn:
    size = -(-len(rows) // chunks)
    parts = [pa.array(rows[start : start + size], pa.list_(pa.string())) for start in range(0, len(rows), size)]
    return LabelColumn.of(pa.chunked_array(parts))


@settings(deadline=None, derandomize=True)
@given(ROWS, TABLES, st.integers(1, 3))
def test_moved_is_a_replacement_of_each_name(
    rows: list[list[str] | None], table: dict[str, str | None], chunks: int
) -> None:
    found = column(rows, chunks).moved(dict(table)).arrow().to_pylist()
    expected = [None if row is None else {new for name in row if (new := table.get(name, name))} for row in rows]
    assert [None if row is None else set(row) for row in found] == expected
    assert all(row is None or len(row) == len(set(row)) for row in found)


@settings(deadline=None, derandomize=True)
@given(ROWS)
def test_counts_are_rows_with_a_name(rows: list[list[str] | None]) -> None:
    found = column(rows).moved({})
    counts = dict(zip(found.names, found.counts().tolist(), strict=True))
    assert counts == {name: sum(name in (row or ()) for row in rows) for name in counts}


@settings(deadline=None, derandomize=True)
@given(ROWS, st.permutations("abcdz"))
def test_ordered_is_the_order_of_ids(rows: list[list[str] | None], order: list[str]) -> None:
    found = column(rows).ordered(order)
    assert found.names == tuple(order)
    for row in found.arrow().to_pylist():
        assert row is None or row == sorted(row, key=order.index)


def test_rows_of_a_slice() -> None:
    sliced = pa.array([["x"], ["a", "b"], None, []], pa.list_(pa.string())).slice(1)
    assert LabelColumn.of(pa.chunked_array([sliced])).arrow().to_pylist() == [["a", "b"], None, []]
