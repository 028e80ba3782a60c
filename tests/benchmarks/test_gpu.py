"""What is to run on a card, on a CPU: with tiny networks, and without the packages that such a machine lacks."""

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from benchmark_files import BENCHMARKS

THERE = {"fsspec", "jaxtyping", "numpy", "pillow", "pyarrow", "pydantic", "scipy", "torch", "torchvision"}
"""Dependencies of raypipe that gpu.py may need."""
MODULES = {"pydensecrf2": "pydensecrf", "pyyaml": "yaml"}
"""Modules that are called differently from their packages."""

RUN = """
import runpy, sys
from importlib.machinery import PathFinder

class Present(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else super().find_spec(name, path, target)

sys.meta_path = [Present if finder is PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, {folder!r})
sys.argv = ["gpu.py", *{options}]
runpy.run_path({folder!r} + "/gpu.py", run_name="__main__")
"""


def absent_modules() -> list[str]:
    """All packages that raypipe depends on but those that are there, and one that its other benchmarks need."""
    project = tomllib.loads((BENCHMARKS.parent / "pyproject.toml").read_text())["project"]
    names = {re.split(r"[^a-z0-9-]", dependency)[0] for dependency in project["dependencies"]}
    assert names > THERE
    return sorted({MODULES.get(name, name) for name in names - THERE} | {"psutil"})


def test_all_checks_hold_on_a_cpu_and_every_part_is_there() -> None:
    script = RUN.format(absent=absent_modules(), folder=str(BENCHMARKS), options=["--device", "cpu"])
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    parts = {line[0] for line in lines}
    assert {"golden numbers", "NaN", "out of memory", "tiny images", "equal bytes, trainings"} <= parts
    assert {"kernels", "peak", "walk", "CAM pass", "loop", "training", "refinement", "decoding"} <= parts
    assert sum(line[-1].strip() == "ok" for line in lines) > 40
    assert "all checks hold" in done.stdout
    assert "timm/test_vit | not run: timm is missing" in done.stdout


def test_maps_of_timms_networks_are_checked_where_timm_is(card: Callable[[str], ModuleType], tmp_path: Path) -> None:
    against_cpu, report, setting = map(card, ("against_cpu", "report", "setting"))
    lines = report.Report(minutes=1, judges=False)
    with ThreadPoolExecutor(1) as threads:
        options = {"device": torch.device("cpu"), "sizes": setting.SMALL, "folder": tmp_path, "threads": threads}
        against_cpu.check_more_cams(lines, setting.Setting(**options))
    assert [(line.what, line.result) for line in lines.lines] == [("maps of timm/test_efficientnet", "ok")]


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """Imports a part of gpu.py."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = set(sys.modules)
    yield lambda name: __import__(f"card.{name}", fromlist=[name])
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("card", "measure", "psa_recipe"):
            del sys.modules[name]


def test_what_breaks_off_or_does_not_hold_is_a_failed_row_and_the_rest_runs(
    card: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]
) -> None:
    report = card("report").Report(minutes=1, judges=True)

    def breaks_off() -> None:
        raise RuntimeError("first line\nlast | line")

    report.run("one", breaks_off)
    report.run("two", lambda: report.check("three", 3, demanded="4", held=False))
    report.run("five", lambda: report.measure("speed", 1, target="2", reached=False), measures=True)
    assert [line.result for line in report.lines] == ["FAILED", "FAILED", "missed"]
    assert report.num_failed == 2
    assert "| one | broke off | RuntimeError: last \\| line |  | FAILED |" in str(report)
    assert "first line" in capsys.readouterr().err


def test_no_measurement_is_begun_when_the_time_is_used_up(card: Callable[[str], ModuleType]) -> None:
    report = card("report").Report(minutes=-1, judges=True)
    report.run("measured", lambda: report.measure("speed", 1), measures=True)
    report.run("checked", lambda: report.check("equal", "", demanded="", held=True))
    assert [line.value for line in report.lines] == ["not run: out of time", ""]
    assert report.num_failed == 0


@pytest.mark.parametrize("value", [1.1, torch.nan])
def test_rounding_is_allowed_and_nothing_else(card: Callable[[str], ModuleType], value: float) -> None:
    report = card("report").Report(minutes=1, judges=True)
    expected = torch.ones(3)
    report.close("rounding", [expected + 1e-7], [expected], atol=1e-6)
    report.close("value", [torch.tensor([1, value, 1])], [expected], atol=1e-6)
    report.close("shape", [torch.ones(2)], [expected], atol=1e-6)
    assert [line.result for line in report.lines] == ["ok", "FAILED", "FAILED"]


@pytest.mark.shared_data
def test_golden_numbers(card: Callable[[str], ModuleType], golden: Path) -> None:
    report, setting = card("report").Report(minutes=1, judges=False), card("setting")
    cpu = setting.Setting(device=torch.device("cpu"), sizes=setting.SMALL, folder=Path(), threads=None)
    report.run("golden numbers", lambda: card("goldens").check_goldens(report, cpu, golden))
    assert [line.result for line in report.lines] == ["ok"] * 7


def test_a_card_is_busy_while_any_kernel_runs(card: Callable[[str], ModuleType]) -> None:
    """Streams overlap; an event may lie within another one. Times are microseconds."""
    spans = [(40, 50), (0, 10), (5, 20), (8, 9), (20, 22)]
    events = [SimpleNamespace(time_range=SimpleNamespace(start=first, end=last)) for first, last in spans]
    assert card("loop")._covered(events) == pytest.approx(32e-6)
