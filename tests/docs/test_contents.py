"""What pages say of columns and messages is what the code has."""

import ast
import re
from pathlib import Path

import pyarrow as pa
import pytest
from doc_pages import REPOSITORY

from raypipe import schema
from raypipe.formats.registry import FORMATS

FORMATS_PAGE = (REPOSITORY / "docs/file-formats.md").read_text()
MESSAGES = re.findall(r"^\*\*`(.+?)`\*\*", (REPOSITORY / "docs/troubleshooting.md").read_text(), re.MULTILINE)
PLACEHOLDER = "…"

SCHEMAS = {
    "Manifest": schema.MANIFEST,
    "Seeds": schema.SEEDS,
    "Given seeds": schema.GIVEN_SEEDS,
    "Masks": schema.MASKS,
    "Saliency maps": schema.SALIENCY,
    "Quarantine": schema.QUARANTINE,
}


def table(heading: str) -> list[list[str]]:
    """Cells of the first table under a heading."""
    (section,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", FORMATS_PAGE, re.DOTALL | re.MULTILINE)
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")]
    return [[cell.strip("` |") for cell in row] for row in rows]


def type_name(kind: pa.DataType) -> str:
    if pa.types.is_list(kind):
        return f"list<{type_name(kind.value_type)}>"
    return str(kind)


@pytest.mark.parametrize("heading", SCHEMAS)
def test_columns(heading: str) -> None:
    expected = [[field.name, type_name(field.type)] for field in SCHEMAS[heading]]
    assert [row[:2] for row in table(heading)] == expected


def test_exports() -> None:
    assert [row[0] for row in table("Exports")] == list(FORMATS)


def literals(path: Path) -> list[str]:
    """The texts of a module, docstrings left out, with a placeholder for each value that is put in."""
    tree = ast.parse(path.read_text())
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else PLACEHOLDER for part in node.values]
            found.append("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            found.append(node.value)
    return found


@pytest.fixture(scope="module")
def texts() -> str:
    return "\n".join(text for path in (REPOSITORY / "raypipe").rglob("*.py") for text in literals(path))


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_are_in_the_source(message: str, texts: str) -> None:
    for part in message.split(PLACEHOLDER):
        assert part.strip() in texts, part


def test_messages_are_found() -> None:
    assert 25 <= len(MESSAGES) <= 70
    assert len(set(MESSAGES)) == len(MESSAGES)
