"""Brings the repository's other pages into the site, and leads links that leave `docs/` to what the site has.

A link to a page goes to that page, one to code whose text is a name to that name in the API reference. Other files of
the repository aren't in the site, so of a link to one its text stays.
"""

import os
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDER = "repository"
"""Of the site, for pages from elsewhere than docs/."""

NAMED = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md", "infra/README.md")
PICTURES = (".png", ".svg")

_LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)")
_CODE = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)


def on_files(files: Files, config: Any) -> Files:
    """Adds the other pages and their pictures."""
    benchmarks = sorted(path for path in (REPOSITORY / "benchmarks").iterdir() if path.suffix in (".md", *PICTURES))
    for path in [*(REPOSITORY / name for name in NAMED), *benchmarks]:
        uri = f"{FOLDER}/{path.relative_to(REPOSITORY).as_posix()}"
        files.append(File.generated(config, uri, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: Any, files: Files) -> str:  # noqa: ARG001 - as MkDocs calls it
    """Leads the page's links to places in the repository to those of the site."""
    place = page.file.src_uri
    here = REPOSITORY / (place.removeprefix(f"{FOLDER}/") if place.startswith(FOLDER) else f"docs/{place}")
    api = "".join(path.read_text() for path in (REPOSITORY / "docs/api").glob("*.md"))

    def replaced(match: re.Match[str]) -> str:
        picture, text, target = match.groups()
        path, _, anchor = target.partition("#")
        if not path or re.match(r"[a-z]+:", target):
            return match[0]
        found = Path(os.path.normpath(here.parent / path)).relative_to(REPOSITORY).as_posix()
        uri = found.removeprefix("docs/") if found.startswith("docs/") else f"{FOLDER}/{found}"
        if files.get_file_from_path(uri) is None:
            return text if picture else _code(text, found, api)
        relative = os.path.relpath(uri, Path(place).parent)
        return f"{picture}[{text}]({relative}{'#' * bool(anchor)}{anchor})"

    parts = _CODE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(replaced, part) for part in parts)


def _code(text: str, path: str, api: str) -> str:
    """A link to the API reference where it has the module; else the text alone."""
    module = path.removesuffix(".py").replace("/", ".")
    if f"::: {module}\n" not in api:
        return text
    name = re.fullmatch(r"`(\w+)`", text)
    return f"[{text}][{module}.{name[1]}]" if name else f"[{text}][{module}]"
