"""A classifier is asked for labels: of images that were held out, or by a cross-validation."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_networks import write_tiny

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.manifest import Manifest
from raypipe.pipelines.classifier import classifier_plan
from raypipe.pipelines.context import Context, open_context
from raypipe.pipelines.labels.knowledge import class_skills, read_label_precision
from raypipe.pipelines.labels.precision import label_precision, labels_plan, measure_labels
from raypipe.training.held_out import Asked, write_asked
from raypipe.training.tasks import ClassifierTask
from raypipe.training.trainer import write_metrics
from raypipe.uri import parent


def outputs(
    class_ids: list[list[int]], logits: list[list[float]], features: list[list[float]] | None = None
) -> pa.Table:
    ids = [str(index) for index in range(len(class_ids))]
    table = pa.table({"image_id": ids, "class_ids": class_ids, "logits": pa.array(logits, pa.list_(pa.float32()))})
    return table if features is None else table.append_column("features", pa.array(features, pa.list_(pa.float32())))


def test_held_out_by_hand() -> None:
    """Class a: of images 0 to 3 it puts 1 before 0, which shows it; of the learned ones, 4 and 5, all are right."""
    found = outputs(
        [[1], [], [1], [], [1], [2]],
        [[2, 0], [3, 0], [1, 0], [0, 0], [5, 0], [-5, 0]],
    )
    known = label_precision(found, Asked(held_out=["0", "1", "2", "3"], learned=["4", "5"]), classes=("a", "b"))
    assert (known.method, known.num_images) == ("held out", 4)
    first, second = known.classes
    assert (first.name, first.num_positive, first.learned) == ("a", 2, 1.0)
    assert first.precision == pytest.approx((1 / 2 + 2 / 3) / 2, abs=1e-4)
    assert first.chance == pytest.approx(((25 / 12) + (4 - 25 / 12) / 3) / 4, abs=1e-4)
    assert (second.precision, second.chance, second.learned) == (None, None, 0.5), "no held-out image shows b"


def test_cross_validation_takes_the_lower_of_what_was_learned_and_what_could_be() -> None:
    """Features tell class a and not b; the classifier has learned b by heart, and nothing of a."""
    rng = np.random.default_rng(0)
    shown = rng.random((80, 2)) < 0.4
    features = np.concatenate([shown[:, :1] + rng.normal(0, 0.1, (80, 1)), rng.normal(size=(80, 3))], axis=1)
    logits = np.stack([rng.normal(size=80), shown[:, 1] * 9.0], axis=1)
    class_ids = [(np.flatnonzero(each) + 1).tolist() for each in shown]
    found = outputs(class_ids, logits.tolist(), features.tolist())
    asked = Asked(held_out=[], learned=found["image_id"].to_pylist())
    known = label_precision(found, asked, classes=("a", "b"))
    assert (known.method, known.num_images) == ("cross-validation", 80)
    a, b = known.classes
    assert a.precision == a.learned
    assert a.precision is not None
    assert a.precision < 0.7
    assert b.learned == 1
    assert b.precision is not None
    assert b.precision < 0.7


def test_nothing_that_could_be_read_tells_nothing() -> None:
    known = label_precision(outputs([], [], []), Asked(held_out=[], learned=["0"]), classes=("a", "b"))
    assert known.num_images == 0
    assert [each.precision for each in known.classes] == [None, None]


@pytest.fixture
def context(synthetic: tuple[str, Manifest], tmp_path: Path) -> Context:
    options = [f"manifest={synthetic[0]}", f"out={tmp_path}/out"]
    return open_context(load_config("preset: demo", options))


@pytest.fixture
def random_classifier(context: Context, tmp_path: Path) -> Artifact:
    return write_tiny(str(tmp_path / "classifier"), classes=context.classes)


def test_a_random_classifier_is_measured_and_what_it_knows_said_once(
    context: Context,
    random_classifier: Artifact,
    in_this_process: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    logger = "raypipe.pipelines.labels.precision"
    caplog.set_level("DEBUG", logger=logger)

    def said() -> list[tuple[str, str]]:
        """By this module: what others say, such as a step's count, depends on levels that other tests have set."""
        return [(record.levelname, record.getMessage()) for record in caplog.records if record.name == logger]

    trained = classifier_plan(context, maps=None)
    assert measure_labels(context, random_classifier, trained) is None, "nobody knows which images it has learned from"
    assert trained.asked is not None
    write_asked(trained.asked, random_classifier.uri)
    known = measure_labels(context, random_classifier, trained)
    assert known is not None
    assert known == read_label_precision(random_classifier)
    assert (known.method, known.num_images) == ("cross-validation", trained.rows.num_rows)
    skills = class_skills(random_classifier)
    assert skills is not None
    assert len(skills) == len(context.classes)
    first = said()
    assert [level for level, _ in first] == ["INFO", "INFO", "WARNING"]
    assert first[0][1].startswith("labels: label mAP 0.")
    assert first[1][1].startswith("labels: AP by class, ")
    monkeypatch.setattr(Context, "run", lambda *_, **__: pytest.fail("it is known already"))
    caplog.clear()
    assert measure_labels(context, random_classifier, trained) == known
    assert said() == [("DEBUG", first[0][1]), ("DEBUG", first[1][1]), first[2]], "the warning is no less true"
    write_metrics([{"num_images": 32, "epoch": 1}], parent(random_classifier.uri))
    caplog.clear()
    assert measure_labels(context, random_classifier, trained) == known
    warning = caplog.messages[-1]
    assert f" {2 * context.config.classifier.epochs} steps may be too few" in warning, "of the images of its training"


def test_features_are_those_before_the_training_where_it_had_weights(context: Context, tmp_path: Path) -> None:
    classifier = Artifact("c", "c")
    random: dict[str, Any] = {"backbone": "tiny", "preprocessing": None, "num_classes": 2, "output_stride": 8}
    for weights, expected in ((None, classifier), (f"{tmp_path}/given.pth", f"{tmp_path}/given.pth")):
        plan = labels_plan(context, classifier, ClassifierTask(weights=weights, **random), cross_validates=True)
        assert getattr(plan.stages[-1], "weights", None) == expected
    held_out = labels_plan(context, classifier, ClassifierTask(weights=None, **random), cross_validates=False)
    assert held_out.schema.names == ["image_id", "class_ids", "logits"]
