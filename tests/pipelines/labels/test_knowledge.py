"""What follows from what a classifier knows; measuring it is in test_precision.py."""

import logging
import re
from pathlib import Path

import pytest

from raypipe.artifacts import Artifact
from raypipe.config import Training, load_config
from raypipe.pipelines.labels.knowledge import (
    class_skills,
    knows_nothing,
    read_label_precision,
    say,
    write_label_precision,
)
from raypipe.results import ClassPrecision, LabelPrecision


def known(*precisions: float | None, learned: float = 0.9, num_positive: int = 20) -> LabelPrecision:
    """Of classes a, b, … by their average precision; chance has 0.2."""
    classes = [
        ClassPrecision(
            name=name,
            num_positive=num_positive,
            precision=precision,
            chance=None if precision is None else 0.2,
            learned=None if precision is None else learned,
        )
        for name, precision in zip("abcdefgh", precisions, strict=False)
    ]
    return LabelPrecision(method="held out", num_images=60, classes=tuple(classes))


def training() -> Training:
    return load_config(overrides=["manifest=m", "out=o", "classifier.epochs=3"]).training("classifier")


def kept(folder: Path, precision: LabelPrecision) -> Artifact:
    classifier = Artifact(str(folder), "c")
    write_label_precision(classifier, precision)
    return classifier


def test_what_is_kept_is_read(tmp_path: Path) -> None:
    assert read_label_precision(Artifact(str(tmp_path), "c")) is None
    precision = known(0.6, None)
    assert read_label_precision(kept(tmp_path, precision)) == precision
    assert precision.mean("precision") == 0.6
    assert known(None).mean("precision") is None


def test_skills_by_hand(tmp_path: Path) -> None:
    """(0.6 - 0.2) / 0.8 and so on; the class that no image tells of has that of the means, (0.4 - 0.2) / 0.8."""
    assert class_skills(kept(tmp_path, known(0.6, 0.2, None))) == (0.5, 0.0, 0.25)


def test_next_to_nothing_is_nothing(tmp_path: Path) -> None:
    """(0.27 - 0.2) / 0.8 is less than a tenth; over all classes, a single lucky one doesn't count."""
    assert class_skills(kept(tmp_path, known(0.6, 0.27))) == (0.5, 0.0)
    assert class_skills(kept(tmp_path, known(0.35, 0.2, 0.2))) == (0.0, 0.0, 0.0)


def test_few_images_say_nothing_of_a_class(tmp_path: Path) -> None:
    assert class_skills(kept(tmp_path, known(1.0, 0.2, num_positive=4))) == (0.5, 0.5)


def test_a_classifier_of_which_nobody_knows_is_trusted(tmp_path: Path) -> None:
    unknown = Artifact(str(tmp_path / "none"), "c")
    assert class_skills(unknown) is None
    assert knows_nothing(unknown) is None
    undecided = kept(tmp_path, known(None, None))
    assert class_skills(undecided) is None
    assert knows_nothing(undecided) is None


def test_a_classifier_at_chance_is_no_judge(tmp_path: Path) -> None:
    assert knows_nothing(kept(tmp_path, known(0.5, 0.2))) is None
    reason = knows_nothing(kept(tmp_path, known(0.27, 0.21)))
    assert reason is not None
    assert "label mAP 0.24 where chance has 0.20, held out, n = 60" in reason


@pytest.mark.parametrize(
    ("precision", "warning"),
    [
        (known(0.7, 0.6), None),
        (known(0.9, 0.22), "can't tell b: "),
        (known(0.25, 0.3, learned=0.3), r"21 steps may be too few .*classifier\.epochs, 3.*classifier\.lr"),
        (known(0.25, 0.3, learned=0.95), "the 100 images that it was trained on by heart"),
    ],
    ids=["well", "one class", "too few steps", "too few images"],
)
def test_what_has_gone_wrong_is_said(precision: LabelPrecision, warning: str | None) -> None:
    (level, summary), (_, by_class), *warnings = say(precision, training(), num_images=100)
    assert level == logging.INFO
    assert summary.startswith("label mAP 0.")
    first, second = sorted((each.precision, each.name) for each in precision.classes)
    assert f"first: {first[1]} {first[0]:.2f} (n = 20), {second[1]} {second[0]:.2f} (n = 20)" in by_class
    assert len(warnings) == (warning is not None)
    if warning is not None:
        assert warnings[0][0] == logging.WARNING
        assert re.search(warning, warnings[0][1])


def test_a_single_class_that_all_images_show_is_said() -> None:
    ((level, line),) = say(known(None), training(), num_images=100)
    assert (level, line) == (logging.INFO, "no class can be told from the others, held out, n = 60")
