"""What the shell said is what an option gets."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.config import ConfigError, RunConfig, load_config, to_yaml
from raypipe.uri import absolute

BASE = ["manifest=m.parquet", "out=out"]

ODD = (
    *("runs/try #2", "s3://b/run #2", "a # b", "#x", "12:30", "2024_10", "2024", "2024-10-01", "1e3", "007", "0x1f"),
    *("1.0", ".5", "1_000", "yes", "No", "on", "true", "null", "None", "~x", "run: 2", "{a}", "{a: b}", "a: b.parquet"),
    *("[a]", "[a] b", "*x", "!x", "!!int 3", "@x", "&x", "`x", "%x", "|", ">", "- a", "? a", "---", "'q'", '"q"', '"'),
    *(" a ", "a=b", "100%", "$", "$x", "${HOME}/x", "${", "a${b", "${a.b}", "$${x}", "???", "x:y", "a,b", "ü 🐱", "<<"),
    *(".inf", "=", "a\tb"),
)
"""Texts that mean something else in YAML, or in OmegaConf."""


def value_of(config: RunConfig, name: str) -> Any:
    found: Any = config
    for part in name.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("text", ODD)
def test_a_text_is_that_text(text: str) -> None:
    config = load_config(
        "", [*BASE, f"out={text}", f"splits.masks=[{json.dumps(text, ensure_ascii=False)}]", f"cluster.address={text}"]
    )
    assert config.out == absolute(text)
    assert config.splits.masks == (text,)
    assert config.cluster.address == (None if text == "null" else text)
    assert load_config(to_yaml(config)) == config, "also as the run's folder keeps it"


@settings(deadline=None)  # on a busy machine
@given(st.one_of(st.text(), st.lists(st.sampled_from([*"${}\\:#?'\" a", "${", "\\${", "???", "oc.env"])).map("".join)))
def test_any_text_is_that_text(text: str) -> None:
    name = text.replace("\0", "").replace("\x85", "") + "x"
    if "${oc.env:" in name or "\ud800" <= max(name) <= "\udfff" or not name.isprintable():
        return  # what YAML can't hold, and what is meant to be replaced
    config = load_config("", [*BASE, f"cluster.address={name}", f"out=/{name}"])
    assert config.cluster.address == name
    assert config.out == absolute(f"/{name}")
    assert load_config(to_yaml(config)) == config


@pytest.mark.parametrize("name", ["network.weights", "checkpoints.classifier", "saliency.weights", "cluster.address"])
def test_null_is_null_where_it_may_be(name: str) -> None:
    assert value_of(load_config(f"{{{name.split('.')[0]}: {{}}}}", [*BASE, f"{name}=null"]), name) is None
    assert load_config("", [*BASE, "out=null"]).out == absolute("null")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("seed=3", 3),
        ("seed=1e3", 1000),
        ("walk.beta=4", 4.0),
        ("walk.beta=1e-1", 0.1),
        ("walk.beta=.5", 0.5),
        ("classifier.lr=5e-5", 5e-5),
        ("segmenter.enabled=true", True),
        ("segmenter.enabled=yes", True),
        ("cluster.num_cpus=null", None),
        ("cams.out_stride=1", 1),
        ("cams.scales=[1, .5, 2e0]", (1.0, 0.5, 2.0)),
        ("jitter=[0, 0, 0, 0]", (0, 0, 0, 0)),
        ("affinity.jitter=null", None),
        ("classifier.long_side=[96, 128]", (96, 128)),
        (
            "splits.train=[train, 2024_10, 1e3, 007, yes, null, 12:30]",
            ("train", "2024_10", "1e3", "007", "yes", "null", "12:30"),
        ),
        ("splits.train=['a, b', \"c #1\"]", ("a, b", "c #1")),
        ("splits.train=null", None),
        ("cluster.autoscaling=['nodes=0-8,cpus=64']", ("nodes=0-8,cpus=64",)),
        ("refinement.gate=off", "off"),
        ("classifier.saliency=none", "none"),
        ("network.preprocessing=null", None),
    ],
)
def test_numbers_booleans_and_lists_are_yaml(override: str, expected: Any) -> None:
    assert value_of(load_config("", [*BASE, override]), override.partition("=")[0]) == expected


def test_a_section_may_be_given_whole() -> None:
    config = load_config("walk: {alpha: 3}", [*BASE, "walk={beta: 4, affinity: rgb}", "checkpoints={classifier: 007}"])
    assert (config.walk.alpha, config.walk.beta, config.walk.affinity) == (3, 4, "rgb")
    assert config.checkpoints.classifier == absolute("007")


def test_the_last_override_of_a_name_wins() -> None:
    assert load_config("", [*BASE, "walk.beta=4", "walk={beta: 5}", "walk.beta=6"]).walk.beta == 6


def test_values_of_an_outer_sweep_are_those_of_their_options() -> None:
    kinds = "{checkpoints.classifier: [007, null], kind: [{checkpoints.affinity: 1e3, affinity.epochs: 2}]}"
    config = load_config("", [*BASE, f"sweep.training={kinds}"])
    assert config.sweep.training == {
        "checkpoints.classifier": (absolute("007"), None),
        "kind": ({"checkpoints.affinity": absolute("1e3"), "affinity.epochs": 2},),
    }
    assert load_config(to_yaml(config)) == config


def test_variables_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAYPIPE_TEST", "/a ${b}: #1")
    monkeypatch.setenv("RAYPIPE_SEED", "7")
    overrides = [
        "out=${oc.env:RAYPIPE_TEST}/x",
        "seed=${oc.env:RAYPIPE_SEED}",
        "network.weights=${oc.env:NO_SUCH,null}",
    ]
    config = load_config("", [*BASE, *overrides])
    assert (config.out, config.seed, config.network.weights) == ("/a ${b}: #1/x", 7, None)
    assert load_config("out: ${oc.env:RAYPIPE_TEST}", ["manifest=m"]).out == "/a ${b}: #1"
    assert load_config("{seed: 3, out: 'runs/${seed}'}", ["manifest=m", "seed=4"]).out == absolute("runs/4")
    for override in ("out=${oc.env:NO_SUCH}/x", "seed=${oc.env:NO_SUCH}"):
        with pytest.raises(ConfigError, match=rf"^{override.partition('=')[0]}: .*'NO_SUCH' not found.*oc\.env:NAME"):
            load_config("", [*BASE, override])
    with pytest.raises(ConfigError, match="out: Interpolation key 'nope' not found"):
        load_config("out: ${nope}", ["manifest=m"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("novalue", "expected overrides of the form NAME=VALUE, such as walk.beta=4, got 'novalue'"),
        ("=3", "expected overrides of the form NAME=VALUE"),
        ("seed", "expected overrides of the form NAME=VALUE"),
        ("seed=12:30", "seed: got '12:30'.*valid integer"),
        ("seed=$x", "seed: got '\\$x'.*valid integer"),
        ("seed=", "seed: got ''.*valid integer"),
        ("seed=[3]", "seed: got '\\[3\\]'.*valid integer"),
        ("walk.beta=a # b", "walk.beta: got 'a # b'.*number"),
        ("walk.beta=*x", "walk.beta: got '\\*x'.*number"),
        ("segmenter.enabled=maybe", "segmenter.enabled: got 'maybe'.*boolean"),
        ("splits.train=train", r"splits.train: got 'train', expected a list in brackets, such as \[a, b\]"),
        ("splits.train=[a #1]", "splits.train: got '\\[a #1\\]', which isn't YAML.*put texts in quotes"),
        ("splits.train=[a, *b]", "splits.train: .*which isn't YAML"),
        ("splits.train=[[a]]", "splits.train.0: got \\['a'\\], expected a text"),
        ("jitter=[1, 2, 3]", "jitter: got .*expected more values"),
        ("walk=3", "walk: got 3, expected a mapping"),
        ("walk={beta: [}", "walk: .*which isn't YAML"),
        ("walk={betta: 3}", "walk.betta: unknown name.*Did you mean 'beta'"),
        ("out=", "out: got '': expected a path or URI"),
        ("out=C:\\runs", "out: .*names a drive of Windows"),
        ("preset=007", "preset: got '007', allowed are coco_resnet50"),
        ("precision=null", "precision: got 'null', allowed are 'auto'"),
        ("nope=*x", "nope: unknown name"),
        ("seed.x=3", "seed: got .*valid integer"),
        ("walk.beta=" + "9" * 5000 + "x", "walk.beta: got '999"),
        ("out=s3://user:secret@b/x", "out holds credentials"),
        ("splits.train=[s3://user:secret@b", "splits.train holds credentials"),
    ],
)
def test_a_refused_value_names_its_option(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"(?s)^{message}") as refused:
        load_config("", [*BASE, override])
    assert len(str(refused.value)) < 1000
    assert "secret" not in str(refused.value)


def test_a_file_says_how_to_write_a_text() -> None:
    with pytest.raises(ConfigError, match=r"^out: got 202410, expected a text; in a YAML file, put it in quotes"):
        load_config("{manifest: m, out: 2024_10}")


def test_a_submitted_job_reads_the_same(tmp_path: Path) -> None:
    jobs = Path(__file__).parents[2] / "jobs" / "submit.py"
    overrides = ["manifest=a: b.parquet", "out=runs/try #2", "splits.masks=[2024_10]", "checkpoints.seeds=${HOME}"]
    command = [sys.executable, str(jobs), "run", "-", *overrides, "refinement.gate=off", "--print-config"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True).stdout.decode()
    found = yaml.safe_load(printed)
    assert (found["manifest"], found["out"]) == (f"{tmp_path}/a: b.parquet", f"{tmp_path}/runs/try #2")
    assert found["splits"]["masks"] == ["2024_10"]
    assert load_config(printed).checkpoints.seeds == f"{tmp_path}/${{HOME}}"
