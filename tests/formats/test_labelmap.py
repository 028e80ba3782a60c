"""labelmap.txt, of CVAT and of raypipe."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.formats.labelmap import escape, parse_labelmap, read_labelmap, unescape

HEADER = "# label:color_rgb:parts:actions\n"


@pytest.mark.parametrize(
    ("text", "classes", "colors"),
    [
        ("background:0,0,0::\ndog:128,0,0::\n", ("dog",), {(0, 0, 0): 0, (128, 0, 0): 1}),
        ("dog:1,0,0::\nbackground:0,0,0::\ncat:1,2,3::\n", ("dog", "cat"), {(1, 0, 0): 1, (0, 0, 0): 0, (1, 2, 3): 2}),
        ("Background:0,0,0::\nVoid:9,9,9::\ndog:1,1,1::\n", ("dog",), {(0, 0, 0): 0, (9, 9, 9): 255, (1, 1, 1): 1}),
        ("ignore:224,224,192::\ndog:1,1,1::", ("dog",), {(224, 224, 192): 255, (1, 1, 1): 1}),
        ("dog:::\ncat:::\n", ("dog", "cat"), {}),
        ("dog\ncat\n", ("dog", "cat"), {}),
        ("dog:1, 2, 3\r\ncat: 4,5,6 ::\r\n", ("dog", "cat"), {(1, 2, 3): 1, (4, 5, 6): 2}),
        ("person:1,2,3:head,hand:walking\n", ("person",), {(1, 2, 3): 1}),
        ("a\\: b:1,2,3::\n", ("a: b",), {(1, 2, 3): 1}),
        ("\\#1:1,2,3::\nC\\#:4,5,6::\n", ("#1", "C#"), {(1, 2, 3): 1, (4, 5, 6): 2}),
        ("back\\\\slash:1,2,3::\n", ("back\\slash",), {(1, 2, 3): 1}),
        ("person/rider:1,2,3::\n🐱:4,5,6::\nno:::\n", ("person/rider", "🐱", "no"), {(1, 2, 3): 1, (4, 5, 6): 2}),
        ("\n  \n# comment\ndog:1,2,3::\n", ("dog",), {(1, 2, 3): 1}),
    ],
)  # fmt: skip
def test_parse(text: str, classes: tuple[str, ...], colors: dict[tuple[int, int, int], int]) -> None:
    for whole in (text, HEADER + text):
        found = parse_labelmap(whole)
        assert found.classes == classes
        assert found.colors == colors


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no class"),
        ("background:0,0,0::\n", "names no class"),
        ("dog:red::\n", "line 1: expected name:red,green,blue:parts:actions, got 'dog:red::'"),
        ("dog:1,2::\n", "line 1"),
        ("dog:1,2,3,4::\n", "line 1"),
        ("ok:1,2,3::\n:1,2,3::\n", "line 2"),
        ("dog:1,2,3::::\n", "line 1"),
        ("dog:#ff0000::\n", "line 1"),
    ],
)
def test_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_labelmap(text)
    (tmp_path / "labelmap.txt").write_text(text)
    with pytest.raises(ValueError, match=rf"labelmap\.txt: .*{message}"):
        read_labelmap(str(tmp_path / "labelmap.txt"))


@settings(deadline=None, derandomize=True)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_any_name_is_written_and_read(name: str) -> None:
    assert unescape(escape(name)) == name
    if name.strip().casefold() in ("background", "ignore", "void"):
        return
    found = parse_labelmap(f"{HEADER}{escape(name)}:1,2,3::\n")
    assert found.classes == (name,)
    assert found.colors == {(1, 2, 3): 1}
