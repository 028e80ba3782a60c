"""Names that may mean the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.imports.alike import alike


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("rust", "rsut"),  # neighbours
        ("rust", "rusty"),
        ("trees", "tree"),
        ("leaf rust", "leaf rost"),
        ("leaf rust", "leafrust"),
        ("Rust", "ruSt"),
        ("leaf rust", "leaf_rust"),
        ("Leaf_Rust", "leaf rsut"),
        ("tree", "xtree"),
        ("forêt verte", "foret verte"),
    ],
)
def test_names_that_may_mean_the_same(one: str, other: str) -> None:
    assert alike([one, "sky", other]) == [(one, other)]
    assert alike([other, "sky", one]) == [(other, one)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cat", "car"),
        ("type a", "type b"),
        ("grade 1", "grade 2"),
        ("1000", "1001"),
        ("class10", "class1"),
        ("rust", "tsur"),
        ("abcd", "bcde"),
        ("rust", "ruts x"),
        ("horse", "house fly"),
        ("", "a"),
    ],
)
def test_names_that_do_not(one: str, other: str) -> None:
    assert alike([one, other]) == []


def test_twins_are_told_once() -> None:
    assert alike(["rust", "Rust", "RUST", "rsut"]) == [("rust", "Rust"), ("rust", "RUST"), ("rust", "rsut")]


def test_many_names_are_quick() -> None:
    names = [f"{first}{second}{third}kind" for first in "abcdefghij" for second in "klmnopqrst" for third in "uvwxyz"]
    assert len(alike(names)) > 1000


@given(name=st.text("abcd", min_size=4, max_size=8), place=st.integers(0, 7), letter=st.sampled_from("xyz"))
def test_another_letter_is_found_wherever_it_is(name: str, place: int, letter: str) -> None:
    place %= len(name)
    assert alike([name, name[:place] + letter + name[place + 1 :]]) == [
        (name, name[:place] + letter + name[place + 1 :])
    ]
