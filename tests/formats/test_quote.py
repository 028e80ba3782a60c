"""Values of files in messages."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.formats.quote import quote


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("cat", "'cat'"),
        ("a'b", '"a\'b"'),
        ("x\ny", "'x\\ny'"),
        (7, "7"),
        (None, "None"),
        (1.5, "1.5"),
        (b"\xff\xd8\xff" * 1_000_000, "3,000,000 bytes"),
        (bytearray(3), "3 bytes"),
        (memoryview(b"abc"), "3 bytes"),
        ({"bytes": b"\xff" * 10**6, "path": "a.jpg"}, "{'bytes': 1,000,000 bytes, 'path': 'a.jpg'}"),
        ([b"\xff" * 10**6, 1], "[1,000,000 bytes, 1]"),
        ([1, 2, 3, 4, 5, 6], "[1, 2, 3, 4, 5, …]"),
        ([], "[]"),
        ("🐱", "'🐱'"),
    ],
)
def test_quote(value: Any, expected: str) -> None:
    assert quote(value) == expected


VALUES = st.recursive(
    st.none() | st.text() | st.binary() | st.integers() | st.floats(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@settings(deadline=None, derandomize=True)
@given(VALUES)
def test_a_quote_is_short_and_one_line(value: Any) -> None:
    assert len(quote(value)) <= 161
    assert "\n" not in quote(value)


def test_a_long_text_takes_no_time() -> None:
    assert len(quote("x" * 10**8)) == 161
