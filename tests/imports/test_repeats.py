"""Rows that name an image again."""

from typing import Any

import pytest

from raypipe.formats.draft import draft_table
from raypipe.imports.account import Account
from raypipe.imports.repeats import join_repeats


def join(*rows: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
    account = Account()
    table, ids = join_repeats(draft_table(rows), [row["image_uri"] for row in rows], account)
    found = table.to_pylist()
    assert [row["image_uri"] for row in found] == ids
    return found, str(account)


def row(name: str, labels: list[str] | None, **values: Any) -> dict[str, Any]:
    return {"image_uri": name, "labels": labels, **values}


@pytest.mark.parametrize(
    ("labels", "expected", "said"),
    [
        ([["cat"], ["cat"]], ["cat"], "left out: 1 row that names an image again: 'a'"),
        ([["cat"], ["dog"]], ["cat", "dog"], "1 row names an image again with other labels: 'a'; they were joined"),
        ([["cat", "dog"], ["dog", "cow"]], ["cat", "dog", "cow"], "joined"),
        ([None, ["cat"]], ["cat"], "joined"),
        ([["cat"], None], ["cat"], "left out"),
        ([[], ["cat"]], ["cat"], "joined"),
        ([["cat"], []], ["cat"], "left out"),
        ([None, None], None, "left out"),
        ([None, []], [], "joined"),
        ([["b"], ["a"], ["b"], ["c"]], ["b", "a", "c"], "2 rows name an image again with other labels"),
    ],
)
def test_labels_are_joined(labels: Any, expected: Any, said: str) -> None:
    found, account = join(*(row("a", one) for one in labels), row("b", ["x"]))
    assert [one["labels"] for one in found] == [expected, ["x"]]
    assert said in account


def test_nothing_is_said_of_rows_that_differ() -> None:
    found, account = join(row("a", ["x"]), row("b", ["x"]))
    assert len(found) == 2
    assert account == ""


@pytest.mark.parametrize("name", ["split", "mask_uri", "saliency_uri", "supervision"])
def test_other_columns(name: str) -> None:
    found, account = join(row("a", ["x"], **{name: "one"}), row("a", ["x"], **{name: "two"}))
    assert found[0][name] == "one"
    assert f"1 row names an image again with another {name}: 'a'; the first one stays" in account
    found, account = join(row("a", ["x"]), row("a", ["x"], **{name: "two"}))
    assert found[0][name] == "two"
    assert "another" not in account
