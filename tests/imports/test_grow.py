"""A manifest gets rows."""

from collections.abc import Sequence

import pytest

from raypipe.data.manifest import Manifest
from raypipe.imports.account import Account
from raypipe.imports.grow import add_rows
from raypipe.words import counted

CLASSES = ("dog", "cat")


def manifest(ids: str, *, label: str = "dog", classes: Sequence[str] = CLASSES) -> Manifest:
    rows = [{"image_id": own, "image_uri": f"/{label}/{own}.jpg", "labels": [label]} for own in ids]
    return Manifest.from_rows(rows, classes)


@pytest.mark.parametrize(
    ("old", "new", "replace", "expected"),
    [
        ("ab", "c", False, {"a": "dog", "b": "dog", "c": "ant"}),
        ("ab", "c", True, {"a": "dog", "b": "dog", "c": "ant"}),
        ("ab", "b", True, {"a": "dog", "b": "ant"}),
        ("abc", "ca", True, {"a": "ant", "b": "dog", "c": "ant"}),
        ("abc", "dbe", True, {"a": "dog", "b": "ant", "c": "dog", "d": "ant", "e": "ant"}),
        ("abc", "cba", True, {"a": "ant", "b": "ant", "c": "ant"}),
        ("a", "zy", False, {"a": "dog", "z": "ant", "y": "ant"}),
    ],
)
def test_rows_keep_their_place(old: str, new: str, replace: bool, expected: dict[str, str]) -> None:
    account = Account()
    added = manifest(new, label="ant", classes=(*CLASSES, "ant"))
    found = add_rows(manifest(old), added, replace=replace, account=account)
    rows = found.table.to_pylist()
    assert [(row["image_id"], row["labels"][0]) for row in rows] == list(expected.items())
    assert all(row["image_uri"] == f"/{row['labels'][0]}/{row['image_id']}.jpg" for row in rows)
    assert found.classes == (*CLASSES, "ant")
    replaced = len(set(old) & set(new))
    assert account.lines == [
        f"{counted(len(new) - replaced, 'rows')} added to the {len(old):,} of the manifest, {replaced:,} replaced"
    ]


def test_ids_that_are_there_are_refused() -> None:
    with pytest.raises(ValueError, match=r"2 image_ids are in the manifest already: 'b', 'a'.*--replace"):
        add_rows(manifest("abc"), manifest("bad"), replace=False, account=Account())
