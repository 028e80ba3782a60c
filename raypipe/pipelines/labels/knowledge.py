"""What a classifier knows of its classes, as it is kept in its checkpoint's folder, and what follows from it.

Masks of a classifier that knows nothing may be sure and compact all the same, so gates and predicted IoU ask here. A
checkpoint that was trained elsewhere brings the file along, or nothing is known of it and it is trusted.
"""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.config import RunConfig, Training
from raypipe.ops.average_precision import skill
from raypipe.results import ClassPrecision, LabelPrecision
from raypipe.training.order import num_steps_per_epoch

PRECISION_FILE = "label_precision.json"

NOTHING = 0.1
"""Skill below which a classifier knows nothing: on some tens of images, scores drawn at random come so far."""
LITTLE = 0.3
"""Skill below which something went wrong: a ridge on ImageNet's features has 0.48 of 60 images of 20 classes."""
FEW = 5
"""Images that show a class: what fewer say of it is chance, and the mean over all classes stands for it."""

_MOST_CLASSES = 20
"""That a line names; the report has all."""


def write_label_precision(classifier: Artifact, known: LabelPrecision) -> None:
    """Keeps what a classifier knows in its folder."""
    content = json.dumps(asdict(known), indent=1, ensure_ascii=False).encode()
    storage.write_bytes_atomic(storage.join(classifier.uri, PRECISION_FILE), content)


def read_label_precision(classifier: Artifact) -> LabelPrecision | None:
    """What is kept of a classifier; None where nothing is, as in a folder of given maps."""
    uri = storage.join(classifier.uri, PRECISION_FILE)
    if not storage.exists(uri):
        return None
    found = json.loads(storage.read_bytes(uri))
    classes = tuple(ClassPrecision(**each) for each in found["classes"])
    return LabelPrecision(method=found["method"], num_images=found["num_images"], classes=classes)


def class_skills(maps: Artifact) -> tuple[float, ...] | None:
    """What is known of each class, in [0, 1] and in class-id order; None where nobody knows.

    Less than `NOTHING` is nothing: of a class, and where it is so over all classes, of each of them.

    Args:
        maps: the classifier's checkpoint, or the folder of given maps.
    """
    known = read_label_precision(maps)
    overall = None if known is None else _overall(known)
    if known is None or overall is None:
        return None
    if overall < NOTHING:
        return (0.0,) * len(known.classes)
    skills = [overall if (found := _skill(each)) is None else found for each in known.classes]
    return tuple(0.0 if each < NOTHING else round(each, 2) for each in skills)


def knows_nothing(maps: Artifact) -> str | None:
    """Why a classifier is no judge of masks; None where it is one, or nobody knows. Argument as of `class_skills`."""
    known = read_label_precision(maps)
    overall = None if known is None else _overall(known)
    if known is None or overall is None or overall >= NOTHING:
        return None
    return f"the classifier knows nothing and so is no judge ({_summary(known)})"


def say(known: LabelPrecision, training: Training, *, num_images: int | None) -> Iterator[tuple[int, str]]:
    """Lines with their levels as a log's: what is known, and where that is little, what has probably gone wrong.

    Args:
        known: what was measured.
        training: what the training was told.
        num_images: that it has learned from; None where nobody knows, as of a network that was trained elsewhere.
    """
    overall = _overall(known)
    if overall is None:
        yield logging.INFO, f"no class can be told from the others, {known.method}, n = {known.num_images}"
        return
    yield logging.INFO, _summary(known)
    yield logging.INFO, _by_class(known)
    if overall < LITTLE:
        yield logging.WARNING, _cause(known, training, num_images)
        return
    if weak := [each.name for each in known.classes if (found := _skill(each)) is not None and found < NOTHING]:
        names = ", ".join(weak[:5]) + ("…" if len(weak) > 5 else "")
        yield logging.WARNING, f"the classifier can't tell {names}: look at some of these images and their labels"


def label_sayings(config: RunConfig, known: LabelPrecision, *, epochs: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a page says of a run's classifier, but for the classes.

    Args:
        config: the run's.
        known: what was measured.
        epochs: metrics of its training; none of a network that was trained elsewhere.
    """
    learned = epochs[-1]["num_images"] if epochs else None
    summary, *others = say(known, config.training("classifier"), num_images=learned)
    return [summary[1], *(text for level, text in others if level == logging.WARNING)]


def _cause(known: LabelPrecision, training: Training, num_images: int | None) -> str:
    section, learned, chance = training.section, known.mean("learned"), known.mean("chance")
    if num_images is None:
        return "the classifier knows little: give a better one (checkpoints.classifier), or let the run train one"
    if learned is None or chance is None or skill(learned, chance) < LITTLE:
        steps = section.epochs * num_steps_per_epoch(num_images, section.batch_size)
        return (
            f"the classifier hasn't learned the images that it was trained on: {steps} steps may be too few (raise "
            f"classifier.epochs, {section.epochs}), or its rate is wrong (classifier.lr, {section.lr:g}: try a third "
            "and three times as much)"
        )
    return (
        f"the classifier knows the {num_images} images that it was trained on by heart, and little of others: give "
        "more images, correct labels that images don't show, or start from pretrained weights (network.weights)"
    )


def _overall(known: LabelPrecision) -> float | None:
    """Of the means over all classes; None where no class can be told from the others."""
    precision, chance = known.mean("precision"), known.mean("chance")
    return None if precision is None or chance is None else skill(precision, chance)


def _skill(each: ClassPrecision) -> float | None:
    """Of one class; None where too few images show it."""
    if each.precision is None or each.chance is None or each.num_positive < FEW:
        return None
    return skill(each.precision, each.chance)


def _summary(known: LabelPrecision) -> str:
    precision, chance = known.mean("precision"), known.mean("chance")
    return f"label mAP {precision:.2f} where chance has {chance:.2f}, {known.method}, n = {known.num_images}"


def _by_class(known: LabelPrecision) -> str:
    """The average precision of each class, the least first, with the images that show it."""
    measured = sorted(
        (each.precision, each.name, each.num_positive) for each in known.classes if each.precision is not None
    )
    shown = ", ".join(f"{name} {precision:.2f} (n = {number})" for precision, name, number in measured[:_MOST_CLASSES])
    more = len(measured) - _MOST_CLASSES
    return f"AP by class, the least first: {shown}{f' and {more} more' if more > 0 else ''}"
