"""The documentation as tests read it: pages, their fenced blocks, their commands."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))

NOT_RUN = {
    "make ": "sets up the environment that the tests run in, or takes many minutes; CI runs it",
    "export AWS_": "the fixture names the S3 server",
    "ray job ": "takes a cluster: tests/jobs submits the same file to three raylets",
    "ray up ": "takes an AWS account",
    "ray down ": "the same",
    "ray dashboard ": "the same",
    "aws ": "the same",
    "export RAY_": "the cluster's address and token",
    "fill infra/": "takes a Kubernetes; tests/infra checks the file",
    "kubectl ": "takes a Kubernetes",
}
"""Beginnings of documented commands that no test runs, and why."""


@dataclass(frozen=True)
class Command:
    """A line of a ```console block, continuations joined, comments gone."""

    page: Path
    text: str

    def __str__(self) -> str:
        return f"{self.page.name}: {self.text}"


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[Command]:
    """The commands of a page, from top to bottom."""
    for block in blocks(page, "console"):
        for line in block.replace("\\\n", " ").splitlines():
            if text := re.sub(r"(^|\s)#\s.*$", "", line).strip():
                yield Command(page, text)


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in found}


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Texts and targets of links and pictures to places in the repository."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for label, target in re.findall(r"\[([^\]]*)\]\(([^)\s]+)\)", text):
        if "://" not in target:
            yield label, target
