"""The documented commands exist, and their settings can be used."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from doc_pages import NOT_RUN, PAGES, REPOSITORY, Command, blocks, commands

from raypipe.cli import app
from raypipe.config import load_config
from raypipe.formats.registry import FORMATS

BASE = "manifest: manifest.parquet\nout: out\n"
FILE_ENDINGS = ("csv", "py", "json", "yaml")
COMMANDS = [command for page in PAGES for command in commands(page)]


def page_config(page: Path) -> str:
    """The YAML block of a page that is a whole config; else the least that a run needs."""
    return next((block for block in blocks(page, "yaml") if "manifest:" in block), BASE)


def parse(words: list[str]) -> dict[str, Any]:
    """The parameters of a `raypipe` command; fails where the program would refuse the words."""
    command: Any = typer.main.get_command(app)
    if words[0] == "--seeds":
        words = words[2:]
    while hasattr(command, "commands"):
        assert words, "a command without its sub-command"
        assert words[0] in command.commands, f"no command {words[0]}: {sorted(command.commands)}"
        command, words = command.commands[words[0]], words[1:]
    context = command.make_context(command.name, list(words))
    return dict(context.params)


@pytest.mark.parametrize("command", [each for each in COMMANDS if each.text.startswith("raypipe ")], ids=str)
def test_raypipe_takes_it(command: Command) -> None:
    parameters = parse(shlex.split(command.text.partition(" > ")[0])[1:])
    load_config(page_config(command.page), parameters.get("overrides") or [])
    if "format_name" in parameters:
        assert parameters["format_name"] in FORMATS
        assert parameters["source"] in ("masks", "calibrated", "truth")


@pytest.mark.parametrize("command", [each for each in COMMANDS if not each.text.startswith("raypipe ")], ids=str)
def test_other_commands_are_known_and_name_files_that_exist(command: Command) -> None:
    assert command.text.startswith(tuple(NOT_RUN))
    for path in re.findall(r"(?<![\w/.])(?:infra|jobs|benchmarks)/[\w./-]+", command.text):
        assert (REPOSITORY / path).is_file(), path
    if command.text.startswith("ray job submit"):
        parse(shlex.split(command.text.partition("jobs/submit.py")[2]))
    if command.text.startswith("make "):
        target = command.text.split()[1]
        assert re.search(rf"^{target}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_inline_commands_exist(page: Path) -> None:
    """`raypipe …` in running text: the command and its options; CONFIG and the like stand for anything."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`(raypipe [a-z][^`…]*)`", " ".join(text.split())):
        words = shlex.split(code)[1:]
        command: Any = typer.main.get_command(app)
        words = words[: words.index(">")] if ">" in words else words
        while hasattr(command, "commands") and words:
            assert words[0] in command.commands, code
            command, words = command.commands[words[0]], words[1:]
        options = {name for parameter in command.params for name in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= options, code


@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(page, block, id=f"{page.name}-{i}")
        for page in PAGES
        for i, block in enumerate(blocks(page, "yaml"))
    ],
)
def test_yaml_blocks_can_be_used(page: Path, block: str) -> None:
    load_config(block if "manifest:" in block else BASE + block, [])


@pytest.mark.parametrize(
    "block", [pytest.param(block, id=page.name) for page in PAGES for block in blocks(page, "python")]
)
def test_python_blocks_compile_and_import(block: str) -> None:
    compile(block, "page", "exec")
    exec("\n".join(line for line in block.splitlines() if re.match(r"(import|from) ", line)), {})  # noqa: S102 - ours


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_settings_in_running_text_exist(page: Path) -> None:
    """`section.name` in code font, with or without a value: a setting, if the section is one of the config's."""
    sections = yaml.safe_load(re.sub(r"!!.*", "", _defaults()))
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for section, name in re.findall(r"`([a-z_]+)\.([a-z_]+)(?=[`=.:])", text):
        if isinstance(sections.get(section), dict) and name not in FILE_ENDINGS:
            assert name in sections[section], f"{section}.{name}"


def _defaults() -> str:
    from raypipe.config import to_yaml

    return to_yaml(load_config(BASE, []))
