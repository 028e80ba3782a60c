"""A classifier's maps are refitted, in streams without Ray."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from tiny_networks import write_tiny

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import decode_cam
from raypipe.data.checkpoints import read_checkpoint
from raypipe.data.manifest import Manifest
from raypipe.pipelines import refit as pipeline
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.labels.knowledge import class_skills, write_label_precision
from raypipe.pipelines.refit import CELLS_OF_IMAGE, SETTINGS, find_refit, refit_classifier, refit_plan, refits, refitted
from raypipe.pipelines.seeds import run_seeds
from raypipe.results import ClassPrecision, LabelPrecision
from raypipe.schema import SEEDS
from raypipe.streams.collect import outputs_of


@pytest.fixture
def context(synthetic: tuple[str, Manifest], tmp_path: Path) -> Context:
    options = [f"manifest={synthetic[0]}", f"out={tmp_path}/out", "cams.refit=true"]
    return open_context(load_config("preset: demo", options))


@pytest.fixture
def classifier(context: Context, tmp_path: Path) -> Artifact:
    made = write_tiny(str(tmp_path / "classifier"), classes=context.classes)
    learned = [
        ClassPrecision(name=name, num_positive=9, precision=0.8, chance=0.2, learned=1.0) for name in context.classes
    ]
    write_label_precision(made, LabelPrecision(method="held out", num_images=50, classes=tuple(learned)))
    return made


def test_it_is_made_once_and_makes_the_maps(
    context: Context, classifier: Artifact, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_refit(context, classifier) is None
    refit = refit_classifier(context, classifier)
    assert refit.digest != classifier.digest
    (folder,) = Path(context.config.out, "refit").iterdir()
    assert folder.name == refit_plan(context, classifier).digest, "cells and checkpoint are in one folder"
    assert refit.uri == f"{folder}/checkpoint"
    before, after = (read_checkpoint(each.uri, task="classifier") for each in (classifier, refit))
    added = {name: after.weights[name] for name in after.weights.keys() - before.weights.keys()}
    assert added.keys() == {"refit.weight", "refit.bias"}
    assert added["refit.weight"].shape[:2] == (len(context.classes) + 1, before.weights["fc8.weight"].shape[1])
    assert class_skills(refit) == class_skills(classifier), "it knows what the classifier does"

    seeds, _ = run_seeds(context, maps=refit)
    rows = outputs_of(seeds, context.seed_rows(), SEEDS).to_pylist()
    maps = [decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"]) for row in rows]
    assert all(each.min() >= 0 and each.sum(axis=0).max() <= 1.01 for each in maps if len(each))
    assert any(each.max() < 0.95 for each in maps if len(each)), "nothing stretches them to 1"

    monkeypatch.setattr(Context, "run", lambda *_, **__: pytest.fail("it is there already"))
    assert find_refit(context, classifier) == refit_classifier(context, classifier) == refit
    assert refit_classifier(context, refit) == refit, "a given checkpoint that was refitted stays as it is"
    assert find_refit(replace(context, retrain="all"), classifier) == refit, "of the same images"


@pytest.mark.parametrize("name", [field.name for field in fields(SETTINGS)])
def test_a_refit_by_other_settings_is_another(
    name: str, context: Context, classifier: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = refit_plan(context, classifier).digest
    monkeypatch.setattr(pipeline, "SETTINGS", replace(SETTINGS, **{name: asdict(SETTINGS)[name] / 2}))
    assert refit_plan(context, classifier).digest != before


def cells_of(context: Context, labels: list[int], features: np.ndarray) -> pa.Table:
    content = [np.array(labels, np.uint8).tobytes(), features.astype("<f2").tobytes()]
    return pa.table([["a"], [content[0]], [content[1]]], schema=CELLS_OF_IMAGE)


def test_cells_become_a_layer(context: Context, classifier: Artifact, caplog: pytest.LogCaptureFixture) -> None:
    """Background at one feature, the first class at another: each gets its own, and no other class gets any."""
    checkpoint = read_checkpoint(classifier.uri, task="classifier")
    features = np.eye(checkpoint.weights["fc8.weight"].shape[1])[[0, 0, 3, 3]]
    with caplog.at_level("WARNING"):
        made = refitted(checkpoint, cells_of(context, [0, 0, 1, 1], features))
    weight = made.weights["refit.weight"][:, :, 0, 0]
    scores = weight[:, [0, 3]] + made.weights["refit.bias"][:, None]
    torch.testing.assert_close(scores[:2], 8 * torch.eye(2), atol=0.1, rtol=0)
    assert weight[0].argmax() == 0
    assert weight[1].argmax() == 3
    assert float(weight[2:].abs().max()) < 1e-6
    assert all(name in caplog.text for name in context.classes[1:])
    assert context.classes[0] not in caplog.text


def test_no_sure_cell_is_an_error(context: Context, classifier: Artifact) -> None:
    checkpoint = read_checkpoint(classifier.uri, task="classifier")
    with pytest.raises(ValueError, match="sure of none"):
        refitted(checkpoint, cells_of(context, [], np.zeros(0)))


def test_given_seeds_aren_t_refitted(context: Context) -> None:
    assert refits(context)
    checkpoints = context.config.checkpoints.model_copy(update={"seeds": "/somewhere"})
    assert not refits(replace(context, config=context.config.model_copy(update={"checkpoints": checkpoints})))
