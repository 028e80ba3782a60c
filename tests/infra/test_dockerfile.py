"""The image against pyproject.toml, the pins, and what KubeRay asks of an image."""

import re
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

REPOSITORY = Path(__file__).resolve().parent.parent.parent
DOCKERFILE = (REPOSITORY / "infra/Dockerfile").read_text()


def instructions(name: str) -> list[str]:
    text = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in text.splitlines() if line.split(maxsplit=1)[:1] == [name]]


def copied_from_repository() -> set[str]:
    return {source for line in instructions("COPY") if "--from" not in line for source in line.split()[:-1]}


def test_installs_what_pyproject_says_in_pinned_versions() -> None:
    installs = [line for line in instructions("RUN") if "pip install" in line]
    assert any("--constraint constraints.txt" in line and "--requirement pyproject.toml" in line for line in installs)
    assert all("--constraint constraints.txt" in line or "--no-deps" in line for line in installs)
    assert copied_from_repository() >= {"pyproject.toml", "constraints.txt", "raypipe", "jobs"}


def test_python_is_the_tested_one_and_allowed() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (python,) = re.findall(r"--python (\d[\d.]*)", DOCKERFILE)
    assert SpecifierSet(project["requires-python"]).contains(python)
    assert f"Programming Language :: Python :: {python}" in project["classifiers"]


def test_every_image_is_pinned() -> None:
    images = [*re.findall(r"^ARG BASE=(\S+)", DOCKERFILE, re.MULTILINE), *re.findall(r"--from=(\S+/\S+)", DOCKERFILE)]
    assert len(images) == 2
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images), images
    assert images[0].startswith("nvidia/cuda:")


def test_cpp_compiler_stays_in_the_build_stage() -> None:
    build, final = DOCKERFILE.split("\nFROM ${BASE}\n")
    assert "g++" in build
    assert "g++" not in final


def test_fits_kuberay() -> None:
    final = DOCKERFILE.split("\nFROM ${BASE}\n")[1]
    assert int(instructions("USER")[-1]) > 0, "runAsNonRoot can't check a name"
    assert "ENTRYPOINT" not in [line.split()[0] for line in final.splitlines() if line]
    assert "PATH=/opt/venv/bin:$PATH" in final
    assert re.search(r"apt-get install .*\bwget\b", final), "KubeRay's own probes call it"
    assert re.search(r"apt-get install .*\bgcc libc6-dev\b", final), "Triton compiles its kernel's launcher"


def test_dockerignore_lets_through_exactly_what_is_copied() -> None:
    lines = [line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "*"
    assert {line[1:] for line in lines if line.startswith("!")} == copied_from_repository()
    assert all((REPOSITORY / source).exists() for source in copied_from_repository())
