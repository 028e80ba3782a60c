"""Code that makes seeds is named on the command line, and refused before anything starts where it can't."""

import sys
from collections.abc import Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import pytest
import ray.cloudpickle as cloudpickle
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.config import load_config
from raypipe.config.loading import ConfigError
from raypipe.data.manifest import Manifest
from raypipe.pipelines import seed_provider
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.seed_provider import find_provider
from raypipe.pipelines.seeds import check_given_seeds, given_seeds, seeds_plan
from raypipe.run import open_run
from raypipe.schema import MASKS
from raypipe.streams.collect import count, outputs_of

GOOD = """
from dataclasses import dataclass
import numpy as np
from raypipe.data.given_seeds import encode_seed
from raypipe.schema import GIVEN_SEEDS
from raypipe.stages.base import Row, Stage


@dataclass
class Half(Stage):
    value: float = 0.5
    reads = ("image", "labels")
    writes = GIVEN_SEEDS

    def process(self, row: Row) -> Row:
        return encode_seed({name: np.full((2, 2), self.value) for name in row["labels"]})


@dataclass
class ReadsMore(Half):
    reads = ("image", "depth")


@dataclass
class WritesLess(Half):
    writes = GIVEN_SEEDS.remove(0)


class Plain(Stage):
    reads = ()
    writes = GIVEN_SEEDS

    def process(self, row: Row) -> Row:
        return {}


def function():
    pass
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "made_here.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield "made_here"
    if "made_here" in sys.modules:
        if "made_here" in cloudpickle.list_registry_pickle_by_value():
            cloudpickle.unregister_pickle_by_value(sys.modules["made_here"])
        del sys.modules["made_here"]


def make_context(*options: str, provider: seed_provider.SeedProvider | None = None) -> Context:
    config = load_config("preset: demo", ["manifest=m", "out=out", *options])
    return Context(config, Manifest.from_rows([], ("cat", "dog")), provider=provider)


def test_a_class_of_the_working_directory(module: str) -> None:
    provider = find_provider(f"{module}:Half")
    context = make_context(provider=provider)
    check_given_seeds(context)
    maps = given_seeds(context)
    assert maps == provider.artifact
    assert [type(stage).__name__ for stage in seeds_plan(context, maps=provider.artifact).stages][2] == "ProvideSeeds"
    before = seeds_plan(context, maps=provider.artifact).digest
    assert before != seeds_plan(make_context(), maps=provider.artifact).digest
    # It travels to processes that haven't got the module.
    sent = cloudpickle.dumps(provider.stage)
    del sys.modules[module]
    sys.path.remove(str(Path.cwd()))
    assert cloudpickle.loads(sent).value == 0.5
    sys.modules[module] = ModuleType(module)


def test_an_edit_is_another_version(module: str) -> None:
    first = find_provider(f"{module}:Half")
    cloudpickle.unregister_pickle_by_value(sys.modules.pop(module))
    path = Path(f"{module}.py")
    path.write_text(path.read_text().replace("np.full((2, 2)", "np.full((3, 3)"))
    second = find_provider(f"{module}:Half")
    assert first.version != second.version
    assert first.artifact.digest != second.artifact.digest


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent_module:Half", r"absent_module can't be imported \(No module named .*: install it"),
        ("made_here:Halv", "made_here has no Halv: did you mean 'Half'"),
        ("made_here:function", "needed is a subclass of raypipe.stages.base.Stage"),
        ("made_here:dataclass", "needed is a subclass of raypipe.stages.base.Stage"),
        ("made_here:Plain", "is no dataclass"),
        ("made_here:WritesLess", "needed are the columns of raypipe.schema.GIVEN_SEEDS"),
        ("anything", "anything is no provider: no installed package has an entry point of raypipe.seeds"),
    ],
)
def test_what_is_no_provider(module: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find_provider(name)


def test_a_provider_that_reads_what_isnt_there_is_refused_before_anything_starts(module: str) -> None:
    context = make_context(provider=find_provider(f"{module}:ReadsMore"))
    with pytest.raises(ValueError, match=r"ProvideSeeds reads \['depth'\]"):
        check_given_seeds(context)


def test_an_entry_point_has_its_packages_version(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Distribution:
        version = "3.1"

    sys.path.append(str(Path.cwd()))
    entry = EntryPoint("half", f"{module}:Half", seed_provider.GROUP)
    vars(entry).update(dist=Distribution())
    monkeypatch.setattr(seed_provider, "entry_points", lambda **_: EntryPoints([entry]))
    provider = find_provider("half")
    assert (provider.name, provider.version) == ("half", "3.1")
    with pytest.raises(ValueError, match="halv is no provider: did you mean 'half'"):
        find_provider("halv")


def test_maps_come_from_one_place(module: str, synthetic: tuple[str, Manifest]) -> None:
    config = load_config("", [f"manifest={synthetic[0]}", "out=out", "checkpoints.seeds=folder"])
    with pytest.raises(ValueError, match="leave one out"):
        open_context(config, seeds=f"{module}:Half")


def test_no_config_names_code(module: str) -> None:
    for word in (f"seeds={module}:Half", f"checkpoints.provider={module}:Half"):
        with pytest.raises(ConfigError):
            load_config("", ["manifest=m", "out=o", word])
    context = make_context(f"checkpoints.seeds={module}:Half")
    with pytest.raises(ValueError, match=r"has no seeds\.json"):
        check_given_seeds(context)
    assert module not in sys.modules


def test_the_command_line_names_it(module: str, synthetic: tuple[str, Manifest]) -> None:
    words = ["--seeds", f"{module}:Half", "describe", "-", f"manifest={synthetic[0]}", "out=out"]
    said = CliRunner().invoke(app, [*words, "--machine", "cpus=8,memory=32"], catch_exceptions=False).stdout
    assert "ProvideSeeds: image, labels" in said
    words[1] = f"{module}:Halv"
    assert "did you mean 'Half'" in str(CliRunner().invoke(app, words).exception)
    # The next command names none.
    plain = CliRunner().invoke(app, [*words[2:], "--machine", "cpus=8,memory=32"], catch_exceptions=False).stdout
    assert "ComputeCams" in plain


def test_workers_make_its_maps(
    local_ray: None, module: str, synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They don't have the module."""
    options = ["walk.affinity=rgb", "splits.masks=[val]", "cluster.cpu_actors=1", "cluster.network_actors=1"]
    config = load_config("preset: demo", [f"manifest={synthetic[0]}", f"out={tmp_path}/out", *options])
    run = open_run(config, seeds=f"{module}:Half")
    monkeypatch.chdir("/")
    Path(tmp_path, f"{module}.py").unlink()
    rows = run.context.rows(config.splits.masks)
    assert outputs_of(run.make_masks(), rows, MASKS).num_rows == count(rows) > 0
    (refined,) = [decision for decision in run.decide_gates().decisions if decision.refinement == "dcrf"]
    assert "not judged" in refined.reason
