"""A draft of a map: what may be one class."""

from pathlib import Path

import pytest

from raypipe.formats.draft import Draft, draft_table
from raypipe.imports.class_map import read_class_map
from raypipe.imports.draft_map import merge_twins, write_draft_map, write_map


@pytest.mark.parametrize(
    ("name", "twin"),
    [
        ("dog", "Dog"),
        ("dog", "DOG"),
        ("ice cream", "ice_cream"),
        ("ice cream", "Ice-Cream"),
        ("ice cream", "ice  cream"),
        ("café", "cafe\u0301"),
        ("straße", "STRASSE"),
        ("ﬁsh", "fish"),
        ("dog", "ｄｏｇ"),
        ("dog", "dog "),
        ("dog", "do\u200bg"),
        ("dog", "\ufeffdog"),
        ("two words", "two\xa0words"),
    ],
)
def test_twins(name: str, twin: str) -> None:
    assert merge_twins([name, "other", twin]) == {name: name, "other": "other", twin: name}


@pytest.mark.parametrize(("name", "other"), [("dog", "dogs"), ("cat", "cats and dogs"), ("a1", "a2"), ("🐱", "🐶")])
def test_no_twins(name: str, other: str) -> None:
    assert merge_twins([name, other]) == {name: name, other: other}


def test_the_most_frequent_spelling_stays(tmp_path: Path) -> None:
    path = tmp_path / "map.csv"
    assert write_map({"Dog": 2, "dog": 9, "cat, small": 3, 'a "b"': 1}, str(path)) == 4
    assert path.read_text().splitlines() == [
        "name,new,images", "dog,dog,9", '"cat, small","cat, small",3', "Dog,dog,2", '"a ""b""","a ""b""",1'
    ]  # fmt: skip
    assert read_class_map(str(path)) == {"dog": "dog", "cat, small": "cat, small", "Dog": "dog", 'a "b"': 'a "b"'}


def test_spellings_are_merged_whatever_images_they_are_on(tmp_path: Path) -> None:
    rows = [{"image_uri": "a", "labels": ["Cat", "cat", "Dog", "dog"]}, {"image_uri": "b", "labels": ["cat", "dog "]}]
    draft = Draft(table=draft_table(rows), source="c.csv", root="/")
    write_draft_map(draft, str(tmp_path / "map.csv"))
    assert read_class_map(str(tmp_path / "map.csv"))["Cat"] == "cat"
    assert read_class_map(str(tmp_path / "map.csv"))["dog"] == read_class_map(str(tmp_path / "map.csv"))["Dog"]


def test_groups_are_proposed_and_classes_without_images_are_there(tmp_path: Path) -> None:
    rows = [{"image_uri": "a", "labels": ["Felis catus"]}, {"image_uri": "b", "labels": None}]
    draft = Draft(
        table=draft_table(rows),
        source="c.json",
        root="/",
        classes=("Canis lupus", "Felis catus"),
        groups={"Felis catus": "Mammalia", "Canis lupus": "Mammalia"},
    )
    assert write_draft_map(draft, str(tmp_path / "map.csv")) == 2
    lines = (tmp_path / "map.csv").read_text().splitlines()
    assert lines == ["name,new,images", "Felis catus,Mammalia,1", "Canis lupus,Mammalia,0"]
