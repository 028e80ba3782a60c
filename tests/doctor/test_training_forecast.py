from pathlib import Path

import pytest

from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.doctor import training_forecast as module
from raypipe.doctor.training_forecast import forecast_trainings, time_step
from raypipe.pipelines.classifier import classifier_task
from raypipe.pipelines.context import Context, open_context

MACHINE = "cluster.autoscaling=['nodes=2,cpus=8,memory=16']"


def make_context(manifest: str, out: Path, *overrides: str) -> Context:
    return open_context(load_config("preset: demo", [f"manifest={manifest}", f"out={out}", *overrides]))


def test_hours_are_those_of_all_steps(
    synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        module, "_time", lambda task, *_: {"classifier": 2.0, "affinity": 3.0, "segmenter": 5.0}[task.name]
    )
    options = ["classifier.epochs=10", "classifier.max_images=7", "classifier.batch_size=4", "affinity.epochs=1"]
    options += ["segmenter.enabled=true", "segmenter.epochs=2", "segmenter.rounds=2", "segmenter.batch_size=8"]
    context = make_context(synthetic[0], tmp_path, MACHINE, *options)
    classifier, affinity, segmenter = forecast_trainings(context)
    assert (classifier.name, classifier.num_images, classifier.workers) == ("training of the classifier", 7, 2)
    assert classifier.num_steps == 10 * 2
    assert classifier.hours == pytest.approx(20 * 2 / 3600)
    assert affinity.num_images == 18, "those of the split"
    assert affinity.num_steps == 3
    assert (segmenter.rounds, segmenter.num_steps) == (3, 3 * 2 * 3)


def test_what_is_given_is_not_trained(
    synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, classifier_uri: str
) -> None:
    monkeypatch.setattr(module, "_time", lambda *_: 1.0)
    given = [f"checkpoints.classifier={classifier_uri}", "walk.affinity=rgb"]
    assert forecast_trainings(make_context(synthetic[0], tmp_path, MACHINE, *given)) == []


@pytest.mark.parametrize("short", [0.0, 100.0])
def test_a_step_is_timed_with_its_network_and_loss(
    synthetic: tuple[str, Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: float
) -> None:
    monkeypatch.setattr(module, "SHORT_SECONDS", short)
    context = make_context(synthetic[0], tmp_path, "classifier.saliency=eps", "classifier.crop_size=64")
    training = context.config.training("classifier")
    seconds = time_step(classifier_task(context), training, batch_size=2, threads=1, on_gpu=False)
    assert 0 < seconds < 60
