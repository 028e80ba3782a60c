"""The table of `--map`."""

from pathlib import Path

import pytest

from raypipe.config import ConfigError
from raypipe.config_file import read_config
from raypipe.formats.table.files import find_tables
from raypipe.imports.class_map import final_names, read_class_map
from raypipe.imports.class_names import parse_classes


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("dog,Hund\ncat,\n", {"dog": "Hund", "cat": None}),
        ("name,new\ndog,Hund\n", {"dog": "Hund"}),
        ("name,new,images\ndog,Hund,12\ncat,cat,3\n", {"dog": "Hund", "cat": "cat"}),
        ("From,To\ndog,Hund\n", {"dog": "Hund"}),
        ("\ufeffdog,Hund\r\n\r\ncat, Katze \r\n", {"dog": "Hund", "cat": "Katze"}),
        ("dog;Hund\ncat;\n", {"dog": "Hund", "cat": None}),
        ("dog\tHund\n", {"dog": "Hund"}),
        ('"a, b",c\n', {"a, b": "c"}),
        ('"say ""hi""",c\n', {'say "hi"': "c"}),
        ("dog,Hund\ndog,Hund\n", {"dog": "Hund"}),
        ("🐱,cat\nno,no\nnull,\n1e3,thousand\n", {"🐱": "cat", "no": "no", "null": None, "1e3": "thousand"}),
        ("dog , Hund\n", {"dog": "Hund"}),
        # Of columns in the other order, the first is the old name, as without a header.
        ("new,old\n", {"new": "old"}),
        ('"two\nlines",x\n', {"two\nlines": "x"}),
    ],
)
def test_read(tmp_path: Path, text: str, expected: dict[str, str | None]) -> None:
    (tmp_path / "m.csv").write_text(text, encoding="utf-8", newline="")
    assert read_class_map(str(tmp_path / "m.csv")) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "names no class"),
        (b"name,new\n", "names no class"),
        (b"dog\n", r"line 1: expected a name and the name that takes its place"),
        (b"dog,Hund\n,cat\n", r"line 2: expected a name"),
        (b"dog,Hund\ndog,Wolf\n", r"line 2: 'dog' becomes 'Wolf', but 'Hund' in a line before"),
        (b"dog,Hund\ndog,\n", r"line 2: 'dog' becomes None"),
        ("Bär,x\n".encode("cp1252"), "isn't UTF-8"),
    ],
)
def test_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_class_map(str(tmp_path / "m.csv"))


def test_chains_are_followed_to_their_end() -> None:
    assert final_names({"a": "b", "b": "c", "d": None, "e": "d"}) == {"a": "c", "b": "c", "d": None, "e": None}
    assert final_names({"a": "a", "b": "a"}) == {"a": "a", "b": "a"}
    for circle in ({"a": "b", "b": "a"}, {"a": "b", "b": "c", "c": "a"}, {"x": "a", "a": "b", "b": "a"}):
        with pytest.raises(ValueError, match=r"circle: [abx] to "):
            final_names(circle)


def test_a_long_chain_is_no_problem() -> None:
    chain: dict[str, str | None] = {str(k): str(k + 1) for k in range(300)}
    assert set(final_names(chain).values()) == {"300"}


def test_a_misspelt_file_is_told_with_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "names.csv").write_text("cat,pet\n")
    with pytest.raises(FileNotFoundError, match=r"name\.csv \(--map\); the nearest name there is 'names\.csv'"):
        read_class_map(str(tmp_path / "name.csv"))
    with pytest.raises(FileNotFoundError, match=r"name\.csv \(--classes\); the nearest name there is 'names\.csv'"):
        parse_classes(str(tmp_path / "name.csv"))
    with pytest.raises(FileNotFoundError, match=r"no table .*name\.csv; the nearest name there is 'names\.csv'"):
        find_tables(str(tmp_path / "name.csv"))
    with pytest.raises(ConfigError, match=r"no config file .*name\.csv; the nearest name there is 'names\.csv'"):
        read_config(str(tmp_path / "name.csv"))


def test_a_full_width_comma_is_named(tmp_path: Path) -> None:
    (tmp_path / "map.csv").write_text("cat\uff0cpet\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 1: expected a name.*full-width comma"):
        read_class_map(str(tmp_path / "map.csv"))
