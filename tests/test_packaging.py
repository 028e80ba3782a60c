"""The distribution's name: `raypipe` on the package index is somebody else's, so nobody may be told to install it."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest

from raypipe import __version__

REPOSITORY = Path(__file__).resolve().parent.parent
OURS = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["name"]

FOREIGN = re.compile(r"""pip install\b[^\n`]*?(?<![\w./~-])['"]?raypipe(?![\w./~-])(?!-masks)""")
"""An install of a requirement `raypipe`, with extras or a version or without; not of a path that ends so."""


def tracked_texts() -> list[Path]:
    """Files of the repository that hold text."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    paths = [REPOSITORY / name for name in found.split("\0") if name]
    return [path for path in paths if path.suffix not in (".png", ".jpg") and path.is_file()]


@pytest.mark.parametrize(
    ("text", "foreign"),
    [
        ("pip install 'raypipe[export]'", True),
        ("pip install raypipe", True),
        ("uv pip install --quiet raypipe==1.0.0", True),
        ("pip\ninstall 'raypipe[onnx]'", True),
        ("pip install raypipe-masks", False),
        ("pip install -e '.[export]'", False),
        ("pip install ~/raypipe", False),
        ("pip install -e '.[export]' in raypipe's clone", False),
    ],
)
def test_the_search_finds_what_it_should(text: str, foreign: bool) -> None:
    found = FOREIGN.search(text.replace("\n", " "))
    assert bool(found and "-e '." not in found[0]) is foreign


def test_no_text_installs_a_package_that_is_not_ours() -> None:
    assert OURS != "raypipe"
    found = [
        f"{path.relative_to(REPOSITORY)}: {match[0]}"
        for path in tracked_texts()
        if path != Path(__file__)
        for match in FOREIGN.finditer(re.sub(r"\bpip\s*\n\s*install", "pip install", path.read_text(errors="ignore")))
        if "-e '." not in match[0]
    ]
    assert not found


def test_the_import_is_raypipe_and_comes_from_our_distribution() -> None:
    assert version(OURS) == __version__


def test_above_a_clone_its_folder_does_not_hide_the_package(tmp_path: Path) -> None:
    (tmp_path / "raypipe" / "raypipe").mkdir(parents=True)
    (tmp_path / "script.py").write_text("import raypipe; print(raypipe.__version__)")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{__version__}\n", done.stderr


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_wheel_installs_into_a_bare_environment_and_makes_the_demos_images(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*command: object) -> str:
        words = [str(word) for word in command]
        done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", tmp_path, REPOSITORY)
    (wheel,) = tmp_path.glob("*.whl")
    run(sys.executable, "-m", "venv", tmp_path / "bare")
    run(tmp_path / "bare/bin/python", "-m", "pip", "install", "--constraint", REPOSITORY / "constraints.txt", wheel)
    assert run(tmp_path / "bare/bin/raypipe", "--version") == f"raypipe {__version__}\n"
    run(tmp_path / "bare/bin/raypipe", "synthetic", "data", "--num-images", "8")
    assert (tmp_path / "data/manifest.parquet").exists()
    assert "walk.alpha: 32" in run(tmp_path / "bare/bin/raypipe", "config", "--preset", "demo"), (
        "recipes are in the wheel"
    )
