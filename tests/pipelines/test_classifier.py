"""What a classifier is trained of, by a manifest of a few rows; nothing is trained."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.networks.preprocessing import IMAGENET
from raypipe.pipelines import classifier as module
from raypipe.pipelines.classifier import (
    classifier_plan,
    classifier_task,
    labelled_rows,
    train_classifier,
)
from raypipe.pipelines.context import Context
from raypipe.pipelines.feed import DRAWN
from raypipe.pipelines.networks import NetworkPlan
from raypipe.stages.base import columns_after
from raypipe.stages.crops import LoadClassifierCrops
from raypipe.stages.saliency_crops import LoadSaliencyCrops
from raypipe.streams.collect import collect
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.tasks import ClassifierTask

LABELS: dict[str, list[str] | None] = {
    "a": ["cat"],
    "b": ["cat"],
    "both": ["cat", "dog"],
    "empty": [],
    "null": None,
    "unknown": ["cat", "bird"],
}
LEARNED = ["a", "b", "both", "empty"]
PREDICTING = ("classifier.saliency=eps++", "saliency.weights=isnet.onnx")
MAPS = Artifact("maps", "m")


def make_context(*options: str, **more: dict[str, Any]) -> Context:
    """The rows to train on, and one of another split; `more` are values of rows by their ids."""
    rows: list[dict[str, Any]] = [
        {"image_id": name, "image_uri": f"{name}.jpg", "labels": labels, "split": "train"} | more.get(name, {})
        for name, labels in LABELS.items()
    ]
    rows.append({"image_id": "v", "image_uri": "v.jpg", "labels": ["dog"], "split": "val"})
    config = load_config("preset: demo", ["manifest=m.parquet", "out=out", *options])
    return Context(config, Manifest.from_rows(rows, ("cat", "dog")))


def ids(rows: pa.Table) -> list[str]:
    names: list[str] = rows["image_id"].to_pylist()
    return names


def test_images_whose_labels_teach_nothing_are_left_out() -> None:
    plan = classifier_plan(make_context(), maps=None)
    assert ids(plan.rows) == LEARNED, "an empty list says that there is no object"
    assert plan.classes == ("cat", "dog")
    assert plan.validated_rows is None


def test_a_set_without_usable_labels_is_refused() -> None:
    context = make_context(**{name: {"labels": ["bird"] if index % 2 else None} for index, name in enumerate(LABELS)})
    with pytest.raises(ValueError, match=r"none of the 6 rows of splits\.train=.* labels must be lists of cat, dog"):
        classifier_plan(context, maps=None)


def test_labels_are_usable_row_by_row_however_a_column_is_cut() -> None:
    rows = collect(make_context().rows(None))
    cut = pa.concat_tables([rows.slice(start, 2) for start in range(0, rows.num_rows, 2)])
    assert ids(labelled_rows(cut, ("cat", "dog"))) == [*LEARNED, "v"]
    missing = pa.table({"image_id": ["x", "y"], "labels": pa.array([["cat", None], ["cat"]])})
    assert ids(labelled_rows(missing, ("cat", "dog"))) == ["y"]
    assert labelled_rows(rows.slice(0, 0), ("cat", "dog")).num_rows == 0


def test_a_part_of_the_images_is_drawn_and_its_classes_are_counted() -> None:
    many: dict[str, Any] = {f"cat{index}": {"labels": ["cat"]} for index in range(40)}
    context = make_context("classifier.max_images=8", "repeat_threshold=1", **many)
    rows = [{"image_id": name, "image_uri": "x.jpg", "split": "train", **many[name]} for name in many]
    rows += [row | {"split": "train"} for row in context.manifest.table.to_pylist()]
    context = Context(context.config, Manifest.from_rows(rows, ("cat", "dog")))
    plan = classifier_plan(context, maps=None)
    assert plan.rows.num_rows == 8
    assert {"both", "v"} <= set(ids(plan.rows)), "the two with dogs"
    assert plan.factors is not None
    assert plan.factors.max() == pytest.approx(2), "a dog is on 2 of the 8"


def test_of_many_images_some_are_held_out_and_asked_for() -> None:
    rows = [{"image_id": str(n), "image_uri": "x.jpg", "labels": ["cat"], "split": "train"} for n in range(1200)]
    config = load_config("preset: demo", ["manifest=m.parquet", "out=out", "repeat_threshold=1"])
    plan = classifier_plan(Context(config, Manifest.from_rows(rows, ("cat", "dog"))), maps=None)
    assert plan.asked is not None
    assert len(plan.asked.held_out) == 60
    assert not set(plan.asked.held_out) & set(ids(plan.rows))
    assert plan.rows.num_rows == 1140
    assert plan.factors is not None
    assert len(plan.factors) == 1140
    assert replace(plan, asked=None).provenance() == plan.provenance(), "the rows say it"


def test_images_of_rare_classes_are_drawn_more_often() -> None:
    """cat is on 3 of the 4 images that are learned of, dog on 1: sqrt(1 / (3/4)) and sqrt(1 / (1/4))."""
    plan = classifier_plan(make_context("repeat_threshold=1"), maps=None)
    assert plan.factors is not None
    np.testing.assert_allclose(plan.factors, [(4 / 3) ** 0.5, (4 / 3) ** 0.5, 2, 1])
    assert classifier_plan(make_context(), maps=None).factors is None


def test_without_saliency_it_is_a_plain_classifier() -> None:
    plan = classifier_plan(make_context("classifier.output_stride=16"), maps=None)
    expected = ClassifierTask(backbone="tiny", weights=None, preprocessing=IMAGENET, num_classes=2, output_stride=16)
    assert type(plan.task) is ClassifierTask
    assert plan.task == expected
    assert type(plan.crops) is LoadClassifierCrops


def test_saliency_is_learned_as_the_config_says() -> None:
    section = "classifier.saliency_loss"
    options = ("classifier.saliency=eps", f"{section}.eps_share=0.25", f"{section}.ird_tau=0.4", f"{section}.stride=4")
    task = classifier_task(make_context(*options))
    assert isinstance(task, SaliencyTask)
    assert (task.method, task.eps_share, task.ird_tau, task.stride, task.num_classes) == ("eps", 0.25, 0.4, 4, 2)
    assert classifier_task(make_context("classifier.saliency=eps++")) != task


def test_crops_get_the_given_saliency_or_else_the_predicted_one() -> None:
    context = make_context(*PREDICTING, b={"saliency_uri": "given.png"})
    plan = classifier_plan(context, maps=MAPS)
    assert isinstance(plan.crops, LoadSaliencyCrops)
    assert plan.crops.maps == MAPS, "so that other maps make another network"
    columns_after([*plan.rows.column_names, *DRAWN], [plan.crops])
    read = {row["image_id"]: row for row in plan.rows.to_pylist()}
    assert [read[name]["saliency_uri"] for name in LEARNED] == [None, "given.png", None, None]
    assert read["a"]["saliency_shard_uri"] == "maps/png/a.png"


def test_all_maps_given_leave_none_to_be_predicted() -> None:
    given = {name: {"saliency_uri": f"{name}.png"} for name in LABELS}
    plan = classifier_plan(make_context("classifier.saliency=eps", **given), maps=None)
    assert plan.rows["saliency_uri"].to_pylist() == [f"{name}.png" for name in LEARNED]
    assert plan.rows["saliency_shard_uri"].null_count == len(LEARNED)


@pytest.mark.parametrize(
    ("options", "given", "predicted"),
    [((), [], False), (("classifier.saliency=eps",), [*LABELS], False), (PREDICTING, ["a", "b"], True)],
    ids=["no saliency", "all given", "some missing"],
)
def test_maps_are_predicted_where_the_training_needs_some_that_are_missing(
    options: tuple[str, ...], given: list[str], *, predicted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[NetworkPlan] = []

    def run_training(_context: Context, plan: NetworkPlan) -> Artifact:
        trained.append(plan)
        return Artifact("classifier", "c")

    monkeypatch.setattr(module, "run_saliency", lambda _context: (MAPS, None) if predicted else pytest.fail("needless"))
    measured: list[tuple[Artifact, NetworkPlan]] = []
    monkeypatch.setattr(module, "run_training", run_training)
    monkeypatch.setattr(module, "measure_labels", lambda _context, network, plan: measured.append((network, plan)))
    context = make_context(*options, **{name: {"saliency_uri": f"{name}.png"} for name in given})
    assert train_classifier(context) == Artifact("classifier", "c")
    (plan,) = trained
    assert measured == [(Artifact("classifier", "c"), plan)], "what it has learned is measured afterwards"
    assert getattr(plan.crops, "maps", None) == (MAPS if predicted else None)
