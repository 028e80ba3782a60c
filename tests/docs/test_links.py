"""Links between the documents lead somewhere; links to code name what is there."""

import ast
import re
from pathlib import Path

import pytest
from doc_pages import PAGES, REPOSITORY, headings, links

LINKING = (*PAGES, *sorted((REPOSITORY / "benchmarks").glob("*.md")))
LINKING += tuple(
    REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md", "infra/README.md", "examples/README.md")
)


@pytest.mark.parametrize("page", LINKING, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_relative_links(page: Path) -> None:
    for _, target in links(page):
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in headings(file), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_to_code_name_what_is_there(page: Path) -> None:
    for label, target in links(page):
        name = re.fullmatch(r"`(\w+)`", label)
        if name and target.endswith(".py"):
            tree = ast.parse((page.parent / target).read_text())
            defined = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
            assert name[1] in defined, f"{target} has no {name[1]}"


def test_every_page_is_in_the_index() -> None:
    index = REPOSITORY / "docs/README.md"
    named = {target.partition("#")[0] for _, target in links(index)}
    assert {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {"README.md"} <= named


def test_the_equations_name_code() -> None:
    named = [label for label, _ in links(REPOSITORY / "docs/how-it-works.md") if label.startswith("`")]
    assert len(named) > 30
