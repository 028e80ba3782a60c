"""What class ids mean, whatever the layout."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.formats.draft import Draft, draft_table
from raypipe.imports.account import Account
from raypipe.imports.classes import Classes, ClassOptions, decide_classes, natural_order, say_rare
from raypipe.imports.label_column import LabelColumn


def decide(
    rows: Sequence[Sequence[str] | None],
    *,
    stated: Sequence[str] | None = None,
    usual: bool = False,
    known: Sequence[str] = (),
    account: Account | None = None,
    **options: Any,
) -> Classes:
    """Decides the classes of rows of labels; the data state `stated`."""
    draft = Draft(
        table=draft_table([]),
        source="t.csv",
        root="/data",
        classes=None if stated is None else tuple(stated),
        classes_from="labelmap.txt",
        usual_classes=usual,
    )
    column = LabelColumn.of(pa.chunked_array([pa.array(rows, pa.list_(pa.string()))]))
    return decide_classes(column, draft, ClassOptions(**options), known=known, account=account or Account())


def labels(classes: Classes) -> list[list[str] | None]:
    return classes.labels.arrow().to_pylist()  # type: ignore[no-any-return]


def test_classes_that_may_mean_the_same_are_told() -> None:
    account = Account()
    decide([["rust"], ["rust blight"], ["rsut"], ["cat", "Cat"]], account=account)
    assert "classes that may mean the same: 'Cat' and 'cat', 'rsut' and 'rust'. They" in str(account)


@pytest.mark.parametrize(
    ("names", "order"),
    [
        (["10", "9", "1"], ["1", "9", "10"]),
        (["3", "03", "2"], ["2", "03", "3"]),
        (["1.0", "10.0", "2.0"], ["1.0", "2.0", "10.0"]),
        (["-1", "1", "0"], ["-1", "0", "1"]),
        (["0.5", "10", "2"], ["0.5", "2", "10"]),
        (["10", "9", "cat"], ["10", "9", "cat"]),
        (["1e3", "200"], ["1e3", "200"]),
        (["class 10", "class 2"], ["class 10", "class 2"]),
        (["zebra", "Zebra", "ähre"], ["Zebra", "zebra", "ähre"]),
        (["²", "10"], ["10", "²"]),
        (["٣", "10"], ["10", "٣"]),
        (["🐱", "no", "null"], ["no", "null", "🐱"]),
    ],
)
def test_convention_order_without_a_statement(names: list[str], order: list[str]) -> None:
    assert decide([names]).names == tuple(order)
    assert natural_order(names[::-1]) == tuple(order)


@pytest.mark.parametrize(
    ("stated", "given_names", "usual", "expected", "before"),
    [
        (["dog", "cat"], None, False, ("dog", "cat"), ("dog", "cat")),
        (["dog", "cat", "cow"], None, False, ("dog", "cat", "cow"), ("dog", "cat", "cow")),
        (["background", "dog", "cat"], None, False, ("dog", "cat"), ("dog", "cat")),
        (["Background ", "dog", "cat"], None, False, ("dog", "cat"), ("dog", "cat")),
        (None, ["dog", "cat"], False, ("dog", "cat"), ("dog", "cat")),
        (None, ["background", "dog", "cat"], False, ("dog", "cat"), ("dog", "cat")),
        (None, [" dog ", "cat"], False, ("dog", "cat"), ("dog", "cat")),
        # The data say what masks hold, and --classes in which order the manifest has it.
        (["dog", "cat"], ["cat", "dog"], False, ("cat", "dog"), ("dog", "cat")),
        # What such data usually hold gives way to what is asked for.
        (["cow", "cat", "dog"], ["dog", "cat"], True, ("dog", "cat"), ("dog", "cat")),
        (["cow", "cat", "dog"], None, True, ("cow", "cat", "dog"), ("cow", "cat", "dog")),
    ],
)
def test_who_says_the_order(
    stated: list[str] | None, given_names: list[str] | None, usual: bool, expected: tuple[str, ...], before: Any
) -> None:
    found = decide(
        [["cat"], ["dog"]], stated=stated, usual=usual, classes=None if given_names is None else tuple(given_names)
    )
    assert found.names == expected
    assert found.before == before
    assert labels(found) == [["cat"], ["dog"]]
    assert {found.names[new - 1] for new in found.ids.values() if new} <= set(before)
    assert all(found.names[new - 1] == before[old - 1] for old, new in found.ids.items() if new)


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            [["cat"], ["cow"]],
            {"stated": ["cat", "dog"]},
            r"the label 'cow' isn't among the 2 classes of labelmap\.txt: known are cat, dog\. Complete labelmap\.txt",
        ),
        ([["cat"], ["cow"]], {"classes": ("cat", "cw")}, r"--classes: did you mean 'cw'\? Complete --classes"),
        ([["cat"], ["cow"]], {"stated": ["x"], "usual": True, "classes": ("cat",)}, r"1 class of --classes"),
        ([["cat"]], {"stated": ["cat"], "classes": ("cat", "dog")}, r"'dog', which labelmap\.txt doesn't"),
        ([["cat"]], {"classes": ("cat", "cat")}, "twice"),
        ([["cat"]], {"stated": ["cat", "cat "]}, "twice"),
        ([None, []], {}, "no image has a label"),
        ([["cat"]], {"map": {"cat": None}}, "no class is left"),
        ([["cat"]], {"min_images": 2}, "no class has 2 images: the most has 1"),
        ([["background"]], {}, r"'background' can't be a class.*--map"),
        ([["VOID", "cat"]], {}, r"'VOID' can't be a class.*--map"),
        ([["_ignore_", "cat"]], {}, r"can't be a class"),
        ([["cat"]], {"stated": ["cat", "ignore"]}, r"'ignore' can't be a class"),
        ([["cat"]], {"map": {"cat": "Background"}}, r"'Background' can't be a class"),
        ([["a", "b"]], {"map": {"a": "b", "b": "a"}}, "circle"),
        ([[f"c{k:03d}" for k in range(300)]], {}, r"300 classes.*c254.*--map.*--top 254"),
    ],
)
def test_refused(rows: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        decide(rows, **options)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    ("mapping", "expected", "new_ids"),
    [
        ({"cat": "pet", "dog": "pet"}, ("cow", "pet"), {1: 1, 2: 2, 3: 2}),
        ({"cow": None}, ("cat", "dog"), {1: 255, 2: 1, 3: 2}),
        ({"cat": "cat"}, ("cow", "cat", "dog"), {1: 1, 2: 2, 3: 3}),
        ({"cat": "animal", "animal": "beast"}, ("cow", "beast", "dog"), {1: 1, 2: 2, 3: 3}),
        ({"dog": "cow"}, ("cow", "cat"), {1: 1, 2: 2, 3: 1}),
        ({" dog ": "Hund"}, ("cow", "cat", "Hund"), {1: 1, 2: 2, 3: 3}),
        ({"cow": "cat", "cat": "cow"}, None, None),
        ({"wolf": "dog"}, ("cow", "cat", "dog"), {1: 1, 2: 2, 3: 3}),
        ({"cow": "b", "cat": "a"}, ("b", "a", "dog"), {1: 1, 2: 2, 3: 3}),
        ({"cow": None, "cat": None}, ("dog",), {1: 255, 2: 255, 3: 1}),
        ({"dog": "a, b"}, ("cow", "cat", "a, b"), {1: 1, 2: 2, 3: 3}),
        ({"dog": "cafe\u0301"}, ("cow", "cat", "café"), {1: 1, 2: 2, 3: 3}),
    ],
)
def test_a_map_renames_merges_and_drops(mapping: Any, expected: Any, new_ids: Any) -> None:
    rows = [["dog", "cat"], ["cow"], [], None]
    if expected is None:
        with pytest.raises(ValueError, match="circle"):
            decide(rows, stated=["cow", "cat", "dog"], map=mapping)
        return
    found = decide(rows, stated=["cow", "cat", "dog"], map=mapping, dropped=255)
    assert found.names == expected
    assert found.ids == new_ids
    assert found.keep_ids == (new_ids == {1: 1, 2: 2, 3: 3})
    assert labels(found)[2:] == [[], None]
    assert all(name in expected for row in labels(found) for name in row or ())


@pytest.mark.parametrize(
    ("rows", "mapping", "names"),
    [
        ([["Dog"], ["cat"], ["dog"]], {"Dog": "dog"}, ("cat", "dog")),
        ([["a"], ["b"]], {"a": "z"}, ("b", "z")),
        ([["one"], ["two"], ["ten"]], {"one": "1", "two": "2", "ten": "10"}, ("1", "2", "10")),
        ([["1"], ["2"]], {"1": "x"}, ("2", "x")),
    ],
)
def test_where_nobody_states_an_order_it_is_that_of_the_new_names(rows: Any, mapping: Any, names: Any) -> None:
    assert decide(rows, map=mapping).names == names


def test_a_map_of_nfd_names_finds_nfc_labels() -> None:
    assert decide([["café"]], map={"cafe\u0301": "bar"}).names == ("bar",)
    assert decide([["cafe\u0301"], ["café"]]).names == ("café",)


def test_top_keeps_the_most_frequent_and_their_order() -> None:
    rows = [["a"], ["b"], ["b"], ["c"], ["c"], ["c"], ["d", "c", "b"]]
    account = Account()
    found = decide(rows, stated=["a", "b", "c", "d"], top=2, account=account, dropped=255)
    assert found.names == ("b", "c")
    assert found.ids == {1: 255, 2: 1, 3: 2, 4: 255}
    assert labels(found) == [[], ["b"], ["b"], ["c"], ["c"], ["c"], ["b", "c"]]
    assert "2 classes dropped: 'a', 'd'; their images stay" in account.lines


def test_rare_classes_are_dropped_and_others_named() -> None:
    account = Account()
    found = decide([["a"], ["b"], ["b"]], min_images=2, account=account)
    assert found.names == ("b",)
    assert account.lines == ["1 class dropped: 'a'; their images stay"]
    say_rare({"a": 1, "b": 9, "c": 10, "d": 0}, "abcd", account)
    assert account.lines[1:] == ["classes with fewer than 10 images: d 0, a 1, b 9"]


def test_more_classes_than_ids_are_fine_if_few_stay() -> None:
    rows = [[f"c{k:04d}"] for k in range(1_000)] + [["c0999"]] * 3
    found = decide(rows, stated=[f"c{k:04d}" for k in range(1_000)], top=1)
    assert found.names == ("c0999",)
    assert found.by_name["c0999"] == 1
    assert set(found.ids.values()) == {0}


@pytest.mark.parametrize(
    ("known", "rows", "names"),
    [
        (["dog", "cat"], [["cat"]], ("dog", "cat")),
        (["dog", "cat"], [["ant"], ["cat"]], ("dog", "cat", "ant")),
        (["dog"], [["zebra"], ["ant"]], ("dog", "ant", "zebra")),
        (["10"], [["9"], ["11"]], ("10", "9", "11")),
        (["Dog"], [["dog"]], ("Dog", "dog")),
    ],
)
def test_known_classes_keep_their_ids(known: list[str], rows: Any, names: tuple[str, ...]) -> None:
    account = Account()
    found = decide(rows, known=known, account=account)
    assert found.names == names
    assert any("new classes" in line for line in account.lines) == (len(names) > len(known))
    assert all(found.names[new - 1] == found.before[old - 1] for old, new in found.ids.items())


def test_known_classes_are_limited_too() -> None:
    with pytest.raises(ValueError, match="255 classes"):
        decide([["new"]], known=[f"c{k}" for k in range(254)])


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([["dog"], ["Dog"]], "may mean the same: 'Dog' and 'dog'"),
        (
            [["ice cream"], ["ice_cream"], ["Ice-Cream"]],
            "may mean the same: 'Ice-Cream' and 'ice cream', 'Ice-Cream' and 'ice_cream'",
        ),
        ([["haze"], ["primary"], ["haze primary"]], r"'haze primary': each part is a class, too.*--separator ' '"),
        ([["cat"], ["dog"], ["cat/dog"]], "'cat/dog': each part is a class"),
        ([["cat"], ["dog"], ["cat+dog"]], "'cat+dog': each part is a class"),
    ],
)
def test_odd_names_are_said(rows: Any, said: str) -> None:
    account = Account()
    decide(rows, account=account)
    text = str(account)
    assert all(part in text for part in said.split(".*"))


@pytest.mark.parametrize("rows", [[["polar bear"], ["bear"]], [["person/rider"], ["person"]], [["a-b"]]])
def test_names_of_several_words_are_none_of_it(rows: Any) -> None:
    account = Account()
    decide(rows, account=account)
    assert "each part" not in str(account)


def test_an_account_of_many_twins_is_short() -> None:
    account = Account()
    decide([[f"c{k}" for k in range(120)] + [f"C{k}" for k in range(120)]], account=account)
    assert len(account.lines) <= 3
    assert all(len(line) < 300 for line in account.lines)


@pytest.mark.parametrize(
    "name", ["cat\u200b", "\ufeffcat", "\xa0cat", "cat\u2009", "cat\t", " cat", "cat\u2060", "cat\u3000"]
)
def test_what_no_one_sees_makes_no_class(name: str) -> None:
    assert decide([["cat"], [name]], map={name: "dog"}).names == ("dog",)


@pytest.mark.parametrize("name", ["\x1b[31mred", "bell\x07", "z" * 5_000, "new\nline", "👨\u200d👩\u200d👧"])
def test_an_account_shows_names_as_a_terminal_may(name: str) -> None:
    account = Account()
    assert decide([[name], [name.upper()]], account=account, known=["x"]).names[0] == "x"
    assert all(len(line) < 600 for line in account.lines)
    assert not any(character in str(account) for character in "\x1b\x07")
    assert len(str(account).splitlines()) == len(account.lines)


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8).filter(
    lambda name: name.strip() and name.strip().strip("_").casefold() not in ("background", "ignore", "void")
)


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.none() | st.lists(NAMES, max_size=4), min_size=1, max_size=8),
    st.dictionaries(NAMES, st.none() | NAMES, max_size=4),
)
def test_labels_and_ids_mean_the_same(rows: list[list[str] | None], mapping: Mapping[str, str | None]) -> None:
    """Whatever a map does, an image's labels are the names of the ids that a mask of all its classes gets."""
    try:
        found = decide(rows, map=mapping)
    except ValueError:  # no class is left, or the map is a circle
        return
    before = {name: number for number, name in enumerate(found.before, start=1)}
    for old, new in zip(rows, labels(found), strict=True):
        assert (old is None) == (new is None)
        if old is not None and new is not None:
            clean = LabelColumn.of(pa.chunked_array([pa.array([old], pa.list_(pa.string()))]))
            ids = {found.ids[before[name]] for name in before if name in _cleaned(clean)}
            assert {found.names[number - 1] for number in ids if number} == set(new)
            assert new == [name for name in found.names if name in new]


def _cleaned(column: LabelColumn) -> set[str]:
    return set(decide([column.names]).before) if column.names else set()


def test_a_million_labels_within_seconds() -> None:
    rng = np.random.default_rng(0)
    offsets = pa.array(np.arange(0, 1_000_001, 2, dtype=np.int32))
    values = pa.array([f"c{k}" for k in range(200)]).take(pa.array(rng.integers(0, 200, 1_000_000)))
    column = LabelColumn.of(pa.chunked_array([pa.ListArray.from_arrays(offsets, values)]))
    draft = Draft(table=draft_table([]), source="t", root="/")
    found = decide_classes(column, draft, ClassOptions(top=100), known=(), account=Account())
    assert len(found.names) == 100
    assert len(found.labels.arrow()) == 500_000
