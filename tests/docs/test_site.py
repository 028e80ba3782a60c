"""The documentation as a site: it builds without a warning, and its links lead somewhere."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from doc_pages import REPOSITORY

from raypipe.ops import method


class Links(HTMLParser):
    """Links, pictures and anchors of a page."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.found: list[str] = []
        self.anchors: set[str | None] = set()
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:  # noqa: ARG002 - any tag's
        values = dict(attributes)
        self.anchors |= {values.get("id"), values.get("name")}
        self.found += [target for name in ("href", "src") if (target := values.get(name))]


@pytest.mark.slow
def test_the_site_builds_without_warnings_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WARNING" not in done.stderr
    pages = {path: Links(path) for path in tmp_path.rglob("*.html")}
    broken = set()
    for page, links in pages.items():
        for link in links.found:
            parts = urlsplit(link)
            if parts.scheme or page.name == "404.html":  # whose links count from where the site will lie
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if target.is_dir():
                target /= "index.html"
            anchors = pages[target].anchors if target in pages else set()
            if not target.exists() or (parts.fragment and unquote(parts.fragment) not in anchors):
                broken.add(f"{page.relative_to(tmp_path)}: {link}")
    assert not broken
    reference = pages[tmp_path / "api/ops.html"].anchors
    assert all(any(f".{name}" in (anchor or "") for anchor in reference) for name in method.__all__)
    assert "raypipe.api.run.FinishedRun.masks" in pages[tmp_path / "api/runs.html"].anchors


def test_every_page_is_on_the_site() -> None:
    named = (REPOSITORY / "mkdocs.yml").read_text()
    pages = [path.name for path in (REPOSITORY / "docs").glob("*.md")]
    pages += [f"repository/benchmarks/{path.name}" for path in (REPOSITORY / "benchmarks").glob("*.md")]
    assert [name for name in pages if f"- {name}\n" not in named] == []


def test_every_op_is_in_the_reference() -> None:
    page = (REPOSITORY / "docs/api/ops.md").read_text()
    modules = [path.stem for path in (REPOSITORY / "raypipe/ops").glob("*.py") if path.stem != "__init__"]
    assert [name for name in modules if f"::: raypipe.ops.{name}\n" not in page + "\n"] == []


def test_site_and_index_have_the_same_pages_of_each_kind() -> None:
    index = (REPOSITORY / "docs/README.md").read_text()
    for section in yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text())["nav"]:
        for kind, pages in section.items() if isinstance(section, dict) else ():
            if kind == "Project":  # what isn't documentation of use
                continue
            (text,) = re.findall(rf"^## {kind}: (.*?)(?=^## |\Z)", index, re.DOTALL | re.MULTILINE)
            on_site = set(re.findall(r"(?<![\w/])(?:api/)?[\w-]+\.md", yaml.safe_dump(pages)))
            in_index = {target for target in re.findall(r"\]\(([^)]+\.md)\)", text) if not target.startswith("..")}
            assert in_index == on_site, kind
