from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.uri import absolute


@pytest.mark.parametrize("uri", ["s3://bucket/a", "https://host/a b", "torchvision://resnet50/IMAGENET1K_V2"])
def test_what_names_its_place_stays(uri: str) -> None:
    assert absolute(uri) == uri


def test_a_relative_path_counts_from_the_working_directory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute("a/b::c.jpg") == str(tmp_path / "a/b::c.jpg")
    assert absolute(f"file://{tmp_path}/a") == str(tmp_path / "a")


def test_every_uri_of_a_config_is_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    training = "sweep.training={checkpoints.classifier: [a, null], of: [{network.weights: b, affinity.epochs: 2}]}"
    config = load_config("preset: demo", ["manifest=m.parquet", "out=run", "network.weights=w.pt", training])
    assert (config.manifest, config.out) == (str(tmp_path / "m.parquet"), str(tmp_path / "run"))
    assert config.network.weights == str(tmp_path / "w.pt")
    assert config.affinity.start == "classifier"
    assert config.sweep.training == {
        "checkpoints.classifier": (str(tmp_path / "a"), None),
        "of": ({"network.weights": str(tmp_path / "b"), "affinity.epochs": 2},),
    }
    assert load_config("", [f"manifest={config.manifest}", "out=s3://bucket/run"]).out == "s3://bucket/run"
