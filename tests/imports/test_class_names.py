"""Class names as `--classes` gives them."""

from pathlib import Path

import pytest

from raypipe.imports.class_names import class_colors, parse_classes

DOG_CAT = ("dog", "cat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog,cat", DOG_CAT),
        (" dog , cat ,", DOG_CAT),
        ('"a, b",c', ("a, b", "c")),
        ("person/rider,dog", ("person/rider", "dog")),
        ("person/rider,", ("person/rider",)),
        ("no,null,1e3,007", ("no", "null", "1e3", "007")),
        ("🐱", ("🐱",)),
        ("dog\ncat", DOG_CAT),
        ('it\'s,a "b"', ("it's", 'a "b"')),
    ],
)
def test_inline(text: str, expected: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_classes(text) == expected


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("classes.txt", "dog\ncat\n\n", DOG_CAT),
        ("classes.txt", "\ufeff dog\r\ncat\r\n", DOG_CAT),
        ("classes.txt", "dog, big\ncat\n", ("dog, big", "cat")),
        ("labels.txt", "0 dog\n1 cat\n", DOG_CAT),
        ("labels.txt", "1: dog\n2: cat\n", DOG_CAT),
        ("labels.txt", "2\tcat\n1\tdog\n", DOG_CAT),
        ("labels.txt", "7 seas\n8 ball\n", ("7 seas", "8 ball")),
        ("labels.txt", "0\n1\n2\n", ("0", "1", "2")),
        ("obj.names", "dog\ncat\n", DOG_CAT),
        ("darknet.labels", "dog\ncat\n", DOG_CAT),
        ("names", "dog\ncat\n", DOG_CAT),
        ("data.yaml", "train: x\nnames:\n  0: dog\n  1: cat\n", DOG_CAT),
        ("data.yaml", "nc: 2\nnames: [dog, cat]\n", DOG_CAT),
        ("data.yml", "names: {0: no, 1: yes, 2: 1e3, 3: null, 4: 007}\n", ("no", "yes", "1e3", "null", "007")),
        ("data.yml", "names: ['🐱', 'a: b', \"it's\"]\n", ("🐱", "a: b", "it's")),
        ("config.json", '{"id2label": {"0": "dog", "1": "cat"}, "label2id": {"dog": 0}}', DOG_CAT),
        ("config.json", '{"id2label": {"10": "k", ' + ", ".join(f'"{k}": "c{k}"' for k in range(10)) + "}}",
         (*(f"c{k}" for k in range(10)), "k")),
        ("indices.json", '{"cat": 1, "dog": 0}', DOG_CAT),
        ("metainfo.json", '{"metainfo": {"classes": ["dog", "cat"], "palette": [[0, 0, 0]]}}', DOG_CAT),
        ("names.json", '["dog", "cat"]', DOG_CAT),
        ("names.json", "[1, 2, 10]", ("1", "2", "10")),
        ("classes.csv", "dog\ncat\n", DOG_CAT),
        ("classes.csv", "id,name\n0,dog\n1,cat\n", DOG_CAT),
        ("classes.csv", "name,id\ncat,2\ndog,1\n", DOG_CAT),
        ("classes.csv", '"dog, big"\ncat\n', ("dog, big", "cat")),
        ("map.pbtxt", "item {\n  id: 2\n  name: 'cat'\n}\nitem {\n  id: 1\n  name: \"dog\"\n}\n", DOG_CAT),
        ("map.pbtxt", "item {\n  name: '/m/1'\n  id: 1\n  display_name: \"dog\"\n}\n", ("dog",)),
        ("labelmap.txt", "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:1,2,3::\ncat:4,5,6::\n", DOG_CAT),
        ("cvat.txt", "# label:color_rgb:parts:actions\ndog:1,2,3::\ncat:::\n", DOG_CAT),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, name: str, content: str, expected: tuple[str, ...]) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    assert parse_classes(str(tmp_path / name)) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("classes.txt", b"", "is empty"),
        ("classes.txt", b"\xe4\n", "isn't UTF-8"),
        ("a.json", b"{", "can't be read as JSON"),
        ("a.yaml", b"names: [", "can't be read as YAML"),
        ("a.json", b"[true, false]", r"expected a list of class names, .* got \[True, False\]"),
        ("a.json", b'{"a": {"b": 1}}', "expected a list of class names"),
        ("a.json", b"[]", "expected a list of class names"),
        ("a.json", b'[["dog"]]', "expected a list of class names"),
        ("a.json", b'{"0": "a", "2": "b"}', "have gaps"),
        ("a.json", b'{"a": 3, "b": 4}', "have gaps"),
        ("a.yaml", b"names: {0: a, 2: b}", "have gaps"),
        ("a.csv", b"a,b,c\nd,e,f\n", "expected a class name a line, or an id and a name"),
        ("a.csv", b"dog,cat\ncow,ant\n", "expected a class name a line, or an id and a name"),
        ("a.pbtxt", b"item { id: 1 }", "expected an id and a name in each item"),
        ("a.pbtxt", b"nothing", "has no items"),
        ("labelmap.txt", b"background:0,0,0::\n", r"labelmap\.txt: it names no class"),
        ("labelmap.txt", b"dog:red::\n", r"labelmap\.txt: line 1: expected name:red,green,blue"),
    ],
)
def test_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as refused:
        parse_classes(str(tmp_path / name))
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["", " ", ",", ", ,"])
def test_no_names(text: str) -> None:
    with pytest.raises(ValueError, match="expected a,b,c"):
        parse_classes(text)


@pytest.mark.parametrize("text", ["absent/classes.txt", "absent.txt", "person/rider", "absent.yaml"])
def test_absent_files(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=text):
        parse_classes(text)


def test_a_class_whose_folder_is_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cat").mkdir()
    assert parse_classes("cat") == ("cat",)


def test_colours_of_a_labelmap(tmp_path: Path) -> None:
    (tmp_path / "labelmap.txt").write_text("background:0,0,0::\ndog:1,2,3::\nvoid:9,9,9::\n")
    assert class_colors(str(tmp_path / "labelmap.txt")) == {(0, 0, 0): 0, (1, 2, 3): 1, (9, 9, 9): 255}
    (tmp_path / "labelmap.txt").write_text("dog:::\n")
    assert class_colors(str(tmp_path / "labelmap.txt")) is None
    (tmp_path / "names.txt").write_text("dog\n")
    assert class_colors(str(tmp_path / "names.txt")) is None
    assert class_colors("dog,cat") is None
