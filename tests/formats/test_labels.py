"""Labels, as datasets keep them."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.formats.labels import LabelReader

READ: list[tuple[Any, list[str] | None]] = [
    # Texts.
    ("cat", ["cat"]),
    (" cat ", ["cat"]),
    ("cat|dog", ["cat", "dog"]),
    (" cat | dog |", ["cat", "dog"]),
    ("cat|cat|dog", ["cat", "dog"]),
    ("", None),
    ("   ", None),
    ("|", None),
    ("007", ["007"]),
    ("1e3", ["1e3"]),
    ("-1", ["-1"]),
    ("1.0", ["1.0"]),
    ("no", ["no"]),
    ("null", ["null"]),
    ("NaN", ["NaN"]),
    ("🐱", ["🐱"]),
    ("𠮷|猫", ["𠮷", "猫"]),
    ("person/rider", ["person/rider"]),
    ("a: b", ["a: b"]),
    ("polar bear", ["polar bear"]),
    ("it's", ["it's"]),
    ("'n Sync", ["'n Sync"]),
    ('5" pipe', ['5" pipe']),
    ("(cat)", ["(cat)"]),
    ("cat (small)", ["cat (small)"]),
    ("cat, small|dog", ["cat, small", "dog"]),
    ("C#", ["C#"]),
    ("0", ["0"]),
    ("caf\u0065\u0301", ["caf\u0065\u0301"]),
    # Lists in texts.
    ("['cat', 'dog']", ["cat", "dog"]),
    ('["cat", "dog"]', ["cat", "dog"]),
    ('["cat"]', ["cat"]),
    ("[]", None),
    ("[ ]", None),
    ("{}", None),
    ("('cat', 'dog')", ["cat", "dog"]),
    ("{'dog', 'cat'}", ["cat", "dog"]),
    ('{"choices": ["cat", "dog"]}', ["cat", "dog"]),
    ('{"choices": "cat"}', ["cat"]),
    ("[1, 2]", ["1", "2"]),
    ("[1.0]", ["1"]),
    ('["cat", null]', ["cat"]),
    ('["it\'s", "a|b"]', ["it's", "a|b"]),
    ('"cat"', ["cat"]),
    ("'cat'", ["cat"]),
    ('"cat, dog"', ["cat, dog"]),
    ('[" cat ", ""]', ["cat"]),
    ('["🐱"]', ["🐱"]),
    # Values.
    (None, None),
    (float("nan"), None),
    (-1, None),
    (-1.0, None),
    (3, ["3"]),
    (3.0, ["3"]),
    (["cat", "dog"], ["cat", "dog"]),
    ((" cat", "cat"), ["cat"]),
    ([], []),
    ([None], []),
    ([float("nan"), "cat"], ["cat"]),
    ([1, 2], ["1", "2"]),
    ({"choices": ["cat"]}, ["cat"]),
]


@pytest.mark.parametrize(("value", "expected"), READ, ids=lambda value: repr(value)[:30])
def test_read(value: Any, expected: list[str] | None) -> None:
    assert LabelReader().read(value, place="row 3") == expected
    of_none = LabelReader(empty="none").read(value, place="row 3")
    assert of_none == ([] if expected is None and isinstance(value, str) else expected)


REFUSED: list[Any] = [
    *("cat,dog", "cat, dog", "cat;dog", "cat\tdog", "cat\ndog", "cat,", ",cat"),
    *("[cat, dog]", "[cat]", "{cat,dog}", '["cat"', 'cat"', '"cat', '"cats" and "dogs"', "cat]"),
    *('["cat", 1.5]', '[["cat"]]', '{"a": 1}', '{"a": ["x"], "b": ["y"]}', "[true]", '[{"label": "cat"}]'),
    *(1.5, True, False, b"cat", [True], [["cat"]], [1.5], {"cat": 1}, {"cat": True, "dog": False}, [b"cat"], {}),
    *("[" * 10_000, "['" + "x" * 10_000, float("inf")),
]


@pytest.mark.parametrize("value", REFUSED, ids=lambda value: repr(value)[:30])
def test_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"^t\.csv, line 3, column 'labels': ") as refused:
        LabelReader().read(value, place="t.csv, line 3, column 'labels'")
    assert len(str(refused.value)) < 400
    assert not isinstance(value, bytes) or "cat" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "separator", "expected"),
    [
        ("cat,dog", ",", ["cat", "dog"]),
        ("cat; dog", ";", ["cat", "dog"]),
        ("haze primary", " ", ["haze", "primary"]),
        ("cat,dog", "|", ["cat,dog"]),
        ("cat|dog", ",", ["cat|dog"]),
        ("[cat, dog]", "|", ["[cat, dog]"]),
        ('"cat"', "|", ['"cat"']),
        ("cat, ,dog,", ",", ["cat", "dog"]),
        ("cat and dog", " and ", ["cat", "dog"]),
        ("cat\ndog", "\n", ["cat", "dog"]),
        ("", ",", None),
    ],
)
def test_a_separator_takes_texts_as_they_are(text: str, separator: str, expected: list[str] | None) -> None:
    assert LabelReader(separator=separator).read(text, place="x") == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, ["dog"]),
        (1.0, ["cat"]),
        ("1", ["cat"]),
        ("cat", ["cat"]),
        ([0, 1], ["dog", "cat"]),
        ("0|cat", ["dog", "cat"]),
        ("[1]", ["cat"]),
        (-1, None),
        ("2007", ["2007"]),
        ("cow", ["cow"]),
    ],
)
def test_numbers_count_in_names(value: Any, expected: list[str] | None) -> None:
    assert LabelReader(names=("dog", "cat", "2007")).read(value, place="x") == expected


@pytest.mark.parametrize("value", [3, "3", [3], -2, [-1], "[7]"])
def test_numbers_beyond_the_names(value: Any) -> None:
    with pytest.raises(ValueError, match=r"x: class number .*, but there are 3 names, counted from 0"):
        LabelReader(names=("dog", "cat", "2007")).read(value, place="x")


PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"], exclude_characters="|,;\"'[]{}()\\"),
    min_size=1,
    max_size=8,
).filter(lambda name: name.strip())


@settings(deadline=None, derandomize=True)
@given(st.lists(PLAIN, min_size=1, max_size=4))
def test_a_list_is_the_same_in_each_form(names: list[str]) -> None:
    expected = list(dict.fromkeys(name.strip() for name in names))
    reader = LabelReader()
    for value in (names, tuple(names), json.dumps(names), json.dumps(names, ensure_ascii=False), repr(names)):
        assert reader.read(value, place="x") == expected
    assert reader.read("|".join(names), place="x") == expected
    assert reader.read({"choices": names}, place="x") == expected


@settings(deadline=None, derandomize=True)
@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = LabelReader().read(text, place="x")
    except ValueError as error:
        message = str(error)
        assert message.startswith("x: ")
        return
    assert found is None or all(name == name.strip() and name for name in found)
