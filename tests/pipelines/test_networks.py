"""What a network depends on, and that it is trained once; in the place of a training, a checkpoint is written."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from raypipe.artifacts import Artifact, digest, identity
from raypipe.cluster.machines import parse_machine
from raypipe.config import load_config
from raypipe.data.checkpoints import CHECKPOINT, Checkpoint, CheckpointError, read_checkpoint, write_checkpoint
from raypipe.data.manifest import Manifest
from raypipe.networks.backbones import BACKBONES
from raypipe.networks.preprocessing import IMAGENET, PREPROCESSINGS, Preprocessing
from raypipe.outputs.lease import FolderInUse, Lease, LeaseLost, find_holder, hold
from raypipe.pipelines import networks
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import Context
from raypipe.pipelines.networks import (
    NetworkPlan,
    crop_options,
    find_trained,
    given_checkpoint,
    run_training,
    training_folder,
)
from raypipe.streams.collect import collect
from raypipe.training import trainer
from raypipe.training.held_out import Asked, read_asked
from raypipe.training.loop import LoopSettings
from raypipe.training.tasks import AffinityTask, ClassifierTask, SegmenterTask, TrainingTask

CLASSES = ("cat", "dog")
ROWS: dict[str, list[str]] = {"a": ["cat"], "b": ["dog"], "c": []}
VALIDATED = pa.table({"image_id": ["v", "w"], "image_uri": ["v.jpg", "w.jpg"], "mask_uri": ["v.png", "w.png"]})


def make_context(*options: str, out: str = "out", classes: tuple[str, ...] = CLASSES) -> Context:
    rows = [{"image_id": name, "image_uri": f"{name}.jpg", "split": "train", "labels": ROWS[name]} for name in ROWS]
    config = load_config("preset: demo", ["manifest=m.parquet", f"out={out}", *options])
    return Context(config, Manifest.from_rows(rows, classes), part=parse_machine("nodes=2,cpus=8,gpus=1,memory=64"))


def make_plan(context: Context, **changes: Any) -> NetworkPlan:
    return replace(classifier_plan(context, maps=None), **changes)


def changed(rows: pa.Table, name: str, values: list[Any]) -> pa.Table:
    index = rows.column_names.index(name)
    return rows.set_column(index, name, pa.array(values, rows.schema.field(name).type))


class Trainings:
    """Counts trainings and writes their checkpoints."""

    def __init__(self) -> None:
        self.folders: list[str] = []

    def __call__(self, _context: Context, plan: NetworkPlan, folder: str, *_: Any) -> None:
        """In the place of `networks._train`."""
        self.folders.append(folder)
        weights = {"weight": torch.full((2,), float(len(self.folders)))}
        options: dict[str, Any] = {"backbone": "tiny", "classes": plan.classes, "preprocessing": {}, "config": {}}
        write_checkpoint(Checkpoint(task=plan.task.name, weights=weights, **options), f"{folder}/{CHECKPOINT}")


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    found = Trainings()
    monkeypatch.setattr(networks, "_train", found)
    return found


def test_a_network_is_trained_once_and_then_found(tmp_path: Path, trainings: Trainings) -> None:
    context = make_context(out=str(tmp_path))
    plan = make_plan(context)
    assert find_trained(context, plan) is None
    made = run_training(context, plan)
    assert made.uri == f"{tmp_path}/classifier/{digest(plan.provenance())}/{CHECKPOINT}"
    assert made.digest == read_checkpoint(made.uri, task="classifier").digest
    assert find_trained(context, plan) == made == run_training(context, plan)
    assert len(trainings.folders) == 1
    record = json.loads(Path(trainings.folders[0], "record.json").read_text())
    assert record == json.loads(json.dumps(plan.provenance()))


def test_another_plan_is_another_network(tmp_path: Path, trainings: Trainings) -> None:
    context, other = (make_context(f"classifier.lr={lr}", out=str(tmp_path)) for lr in (0.1, 0.2))
    made = run_training(context, make_plan(context))
    assert find_trained(other, make_plan(other)) is None
    assert run_training(other, make_plan(other)) != made
    assert len(trainings.folders) == 2
    assert find_trained(context, make_plan(context)) == made


@pytest.mark.parametrize(
    ("option", "stays"),
    [("segmenter.mask_share=0.5", True), ("segmenter.validation_splits=[val]", True), ("repeat_threshold=0.5", False)],
)
def test_a_set_that_grows_keeps_a_network_while_none_of_its_own_options_change(
    tmp_path: Path, trainings: Trainings, option: str, stays: bool
) -> None:
    context, other = (make_context(*options, out=str(tmp_path)) for options in ([], [option]))
    plan = make_plan(context)
    made = run_training(context, replace(plan, rows=plan.rows[:1]))
    assert find_trained(context, plan) == made
    assert find_trained(other, make_plan(other)) == (made if stays else None)
    assert len(trainings.folders) == 1


def test_a_training_that_was_interrupted_goes_on_in_its_folder(
    tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    context = make_context(out=str(tmp_path))
    plan = make_plan(context)
    with monkeypatch.context() as patch:
        patch.setattr(networks, "_train", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run_training(context, plan)
    assert find_trained(context, plan) is None
    run_training(context, plan)
    (folder,) = (tmp_path / "classifier").iterdir()
    assert trainings.folders == [str(folder)]


def test_a_second_run_doesnt_train_in_the_folder_of_one_that_does(tmp_path: Path, trainings: Trainings) -> None:
    context = make_context(out=str(tmp_path))
    plan = make_plan(context)
    folder = training_folder(context, plan)
    with (
        hold(folder, holder="the training of the classifier", beat=0.05),
        pytest.raises(FolderInUse, match=r"is written to by the training of the classifier \(process .* wait until"),
    ):
        run_training(context, plan)
    assert not trainings.folders
    run_training(context, plan)
    assert trainings.folders == [folder]


def test_who_trains_is_known_while_it_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []

    def train(context: Context, plan: NetworkPlan, folder: str, lease: Lease) -> None:
        lease.check()
        found.append(find_holder(folder))
        Trainings()(context, plan, folder)

    monkeypatch.setattr(networks, "_train", train)
    context = make_context(out=str(tmp_path))
    run_training(context, make_plan(context))
    (holder,) = found
    assert holder is not None
    assert holder.text.startswith("the training of the classifier (process ")
    assert find_holder(training_folder(context, make_plan(context))) is None


def test_what_another_run_has_trained_meanwhile_is_taken(
    tmp_path: Path, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = make_context(out=str(tmp_path))
    plan = make_plan(context)

    @contextmanager
    def waited(folder: str, *, holder: str) -> Iterator[Lease]:
        trainings(context, plan, folder)
        with hold(folder, holder=holder) as lease:
            yield lease

    monkeypatch.setattr(networks, "hold", waited)
    assert run_training(context, plan) == find_trained(context, plan)
    assert len(trainings.folders) == 1


def test_a_network_depends_on_its_rows_and_not_on_their_order() -> None:
    plan = make_plan(make_context())
    rows = plan.rows
    same = [replace(plan, rows=rows.take([2, 0, 1])), replace(plan, rows=changed(rows, "split", ["x", "y", "z"]))]
    assert all(other.provenance() == plan.provenance() for other in same)
    others = [
        rows.slice(1),
        changed(rows, "labels", [["dog"], ["dog"], []]),
        changed(rows, "image_uri", ["a.jpg", "moved.jpg", "c.jpg"]),
        changed(rows, "image_id", ["a", "b", "d"]),
    ]
    found = [json.dumps(each.provenance()) for each in (plan, *(replace(plan, rows=other) for other in others))]
    assert len(set(found)) == 1 + len(others)


def test_a_network_depends_on_the_images_that_choose_its_epoch() -> None:
    plan = make_plan(make_context(), validated_rows=VALIDATED)
    assert replace(plan, validated_rows=VALIDATED.take([1, 0])).provenance() == plan.provenance()
    others = [None, VALIDATED.slice(1), changed(VALIDATED, "mask_uri", ["v.png", "better.png"])]
    found = [json.dumps(replace(plan, validated_rows=other).provenance()) for other in others]
    assert len({json.dumps(plan.provenance()), *found}) == 4


def test_a_network_depends_on_the_names_of_its_classes() -> None:
    context = make_context()
    assert make_plan(context).provenance() != make_plan(context, classes=("cat", "cow")).provenance()


def test_what_an_earlier_stream_has_made_is_known_by_its_digest() -> None:
    """Where a shard lies is no part of the network's identity."""
    rows = collect(make_context().rows(None).select(["image_id", "image_uri"]))

    def provenance(uri: str, made_of: str) -> dict[str, Any]:
        table = rows
        more = {"shard_uri": [uri] * 3, "shard_row": [len(uri)] * 3, "shard_digest": [made_of] * 3}
        for name, values in more.items():
            table = table.append_column(name, pa.array(values))
        return make_plan(make_context(), rows=table).provenance()

    first = provenance("here", "of row")
    assert provenance("there", "of row") == first
    assert provenance("here", "of another row") != first


def test_the_number_of_workers_is_no_part_of_a_network() -> None:
    alone, many = (make_plan(make_context(f"cluster.train_workers={number}")) for number in (1, 2))
    assert alone.provenance() == many.provenance()


NETWORK: dict[str, Any] = {"weights": None, "num_classes": 2}


@pytest.mark.parametrize("preprocessing", [None, *PREPROCESSINGS.values()])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_convention_crops_are_filled_with_what_their_network_takes_for_zero(
    backbone: str, preprocessing: Preprocessing | None
) -> None:
    context = make_context()
    tasks: list[TrainingTask] = [
        ClassifierTask(backbone=backbone, preprocessing=preprocessing, output_stride=8, **NETWORK),
        AffinityTask(backbone=backbone, preprocessing=preprocessing, weights=None, radius=5),
        SegmenterTask(backbone=backbone, preprocessing=preprocessing, head="largefov", **NETWORK),
    ]
    for task in tasks:
        with torch.device("meta"):  # has shapes and no numbers, so that large networks cost nothing
            network = task.build()
        fill = crop_options(context, context.config.training(task.name), task)["fill"]
        assert fill == tuple(network.preprocessing.fill)
        colour = torch.tensor(fill, dtype=torch.uint8).reshape(1, 3, 1, 1)
        assert network.preprocessing.normalize(colour).abs().max() < 0.5 * max(1, 1 / 255 / 0.224)


def test_convention_the_fill_is_red_green_blue() -> None:
    context = make_context()
    for name, fill in {"imagenet": (124, 116, 104), "caffe": (123, 117, 104), "tensorflow": (128, 128, 128)}.items():
        task = ClassifierTask(backbone="tiny", preprocessing=PREPROCESSINGS[name], output_stride=8, **NETWORK)
        assert crop_options(context, context.config.training("classifier"), task)["fill"] == fill


def test_a_given_checkpoint_is_known_by_its_content(classifier_uri: str) -> None:
    assert given_checkpoint(make_context(), task="classifier") is None
    context = make_context(f"checkpoints.classifier={classifier_uri}")
    found = read_checkpoint(classifier_uri, task="classifier").digest
    assert given_checkpoint(context, task="classifier") == Artifact(classifier_uri, found)
    assert given_checkpoint(context, task="affinity") is None


@pytest.mark.parametrize("classes", [("dog", "cat"), ("cat", "dog", "cow"), ("cat",)])
def test_a_checkpoint_of_other_classes_is_refused(classes: tuple[str, ...], classifier_uri: str) -> None:
    context = make_context(f"checkpoints.classifier={classifier_uri}", classes=classes)
    with pytest.raises(ValueError, match=r"trained for classes \['cat', 'dog'\], the manifest has .* same order"):
        given_checkpoint(context, task="classifier")


def test_a_checkpoint_of_another_task_is_refused(classifier_uri: str) -> None:
    context = make_context(f"checkpoints.affinity={classifier_uri}")
    with pytest.raises(CheckpointError, match="expected a checkpoint of task 'affinity', got one of 'classifier'"):
        given_checkpoint(context, task="affinity")


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LoopSettings, dict[str, Any]]]:
    """What trainings that were started have been told; they end at once."""
    found: list[tuple[LoopSettings, dict[str, Any]]] = []

    def train(settings: LoopSettings, **options: Any) -> None:
        found.append((settings, options))
        Trainings()(make_context(), make_plan(make_context()), options["folder"])

    monkeypatch.setattr(trainer, "train", train)
    monkeypatch.setattr("ray.put", lambda value: value)
    return found


def test_a_training_is_started_as_the_machine_and_the_config_say(
    tmp_path: Path, started: list[tuple[LoopSettings, dict[str, Any]]]
) -> None:
    """Two nodes with a GPU each, and a batch that two divides."""
    context = make_context("images.max_side=640", "precision=bf16", "classifier.batch_size=6", out=str(tmp_path))
    plan = make_plan(context, validated_rows=VALIDATED, factors=np.ones(3))
    run_training(context, plan)
    ((settings, options),) = started
    assert (settings.task, settings.training, settings.num_images) == (plan.task, plan.training, 3)
    assert options["classes"] == CLASSES
    scaling = options["scaling"]
    assert (scaling.num_workers, scaling.use_gpu, scaling.resources_per_worker["GPU"]) == (2, True, 1)
    assert settings.threads == int(scaling.resources_per_worker["CPU"])
    validation = settings.validation
    assert validation is not None
    assert (validation.num_classes, validation.max_side, validation.precision) == (3, 640, "bf16")
    assert settings.state_seconds == 600
    narrow = ("splits.train=[val]", "cluster.min_train_workers=1", "cluster.state_minutes=2", "classifier.batch_size=6")
    run_training(make_context(*narrow, out=str(tmp_path)), make_plan(context))
    settings, options = started[-1]
    assert settings.validation is None
    assert settings.state_seconds == 120
    assert options["scaling"].num_workers == (1, 2)
    assert options["scaling"].elastic_resize_monitor_interval_s >= 120, "each change of the width costs up to a state"


def test_workers_write_no_state_once_another_run_has_begun(
    tmp_path: Path, started: list[tuple[LoopSettings, dict[str, Any]]]
) -> None:
    context = make_context(out=str(tmp_path))
    run_training(context, make_plan(context))
    ((settings, options),) = started
    settings.check()
    options["check"]()
    Path(options["folder"], "lease", "00000002.json").write_text("{}")
    with pytest.raises(LeaseLost, match=r"another run \(number 2\) has begun"):
        settings.check()


def test_workers_are_given_the_copy_of_published_weights(
    tmp_path: Path, started: list[tuple[LoopSettings, dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(weights: str, *, out: str, preprocessing: Preprocessing) -> str:
        assert preprocessing == IMAGENET
        return f"{out}/weights/copy of {weights}"

    monkeypatch.setattr(networks, "stage_weights", stage)
    context = make_context(
        "network.backbone=resnet50", "network.weights=torchvision://resnet50/IMAGENET1K_V2", out=str(tmp_path)
    )
    run_training(context, make_plan(context))
    ((settings, _),) = started
    assert settings.task.weights == "torchvision://resnet50/IMAGENET1K_V2"
    assert settings.task.staged_weights == f"{tmp_path}/weights/copy of torchvision://resnet50/IMAGENET1K_V2"


def test_what_the_weights_were_trained_on_is_a_part_of_what_a_network_depends_on() -> None:
    given = ["network.backbone=timm/tf_efficientnet_lite0", "network.weights=null"]
    options = networks.network_options(make_context(*given))
    assert options["preprocessing"].mean == (0.5, 0.5, 0.5)
    assert identity(ClassifierTask(**options, num_classes=2, output_stride=8))["preprocessing"]["std"] == [0.5] * 3
    assert networks.network_options(make_context(*given, "network.preprocessing=imagenet"))["preprocessing"] == IMAGENET


def test_a_column_that_crops_lack_is_named_before_anything_starts(
    tmp_path: Path, started: list[tuple[LoopSettings, dict[str, Any]]]
) -> None:
    context = make_context(out=str(tmp_path))
    plan = make_plan(context)
    with pytest.raises(ValueError, match=r"LoadClassifierCrops reads \['labels'\]"):
        run_training(context, replace(plan, rows=plan.rows.drop_columns(["labels"])))
    assert not started


def test_who_is_asked_afterwards_is_kept_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A set may grow before a training that was interrupted goes on: other images would be held out of it then."""
    asked = Asked(held_out=["c"], learned=["a", "b"])

    def interrupted(_context: Context, _plan: NetworkPlan, folder: str, _lease: Lease) -> None:
        assert read_asked(f"{folder}/{CHECKPOINT}") == asked
        raise KeyboardInterrupt

    monkeypatch.setattr(networks, "_train", interrupted)
    context = make_context(out=str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        run_training(context, make_plan(context, asked=asked))
    monkeypatch.setattr(networks, "_train", Trainings())
    trained = run_training(context, make_plan(context, asked=asked))
    assert read_asked(trained.uri) == asked
