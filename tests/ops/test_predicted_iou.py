from functools import partial

import pytest

from raypipe.ops.predicted_iou import (
    BORDER_WEIGHT,
    ENOUGH_SKILL,
    INTERCEPT,
    MARGIN_WEIGHT,
    SEPARATION_WEIGHT,
    SINGLE_CLASS_WEIGHT,
    predicted_iou,
)


def test_hand_worked() -> None:
    value = INTERCEPT + 0.5 * MARGIN_WEIGHT + 0.2 * SEPARATION_WEIGHT + SINGLE_CLASS_WEIGHT / 2
    predicted = partial(predicted_iou, margin=0.5, separation=0.2, num_classes=2)
    assert predicted(border=0.0) == predicted(border=0.5) == pytest.approx(value)
    assert predicted(border=0.7) == pytest.approx(value + 0.2 * BORDER_WEIGHT)


def test_no_label_is_background_for_sure() -> None:
    assert predicted_iou(margin=1.0, separation=0.0, border=0.0, num_classes=0) == 1


def test_surer_and_better_parted_and_no_flood_is_better() -> None:
    image = {"margin": 0.2, "separation": 0.1, "border": 0.8, "num_classes": 3}
    worse = predicted_iou(**image)  # type: ignore[arg-type]
    for better in ({"margin": 0.3}, {"separation": 0.2}, {"border": 0.7}, {"num_classes": 1}):
        assert predicted_iou(**image | better) > worse  # type: ignore[arg-type]
    assert 0 <= worse <= predicted_iou(margin=1.0, separation=1.0, border=0.0, num_classes=1) <= 1


def test_what_the_classifier_knows_by_hand() -> None:
    """Of skill 1/4 half is believed; without skill the mask is some background, 0.8 / (2 + 1)."""
    predicted = partial(predicted_iou, margin=0.5, separation=0.2, border=0.8, num_classes=2)
    assert predicted(skill=0.25) == pytest.approx(predicted() / 2 + 0.4 / 3)
    assert predicted(skill=0.0) == pytest.approx(0.8 / 3)
    assert predicted(skill=ENOUGH_SKILL) == predicted(skill=1.0) == predicted()


def test_a_sure_mask_of_a_classifier_that_knows_nothing_is_not_believed() -> None:
    assert predicted_iou(margin=1.0, separation=1.0, border=0.0, num_classes=1, skill=0.0) == pytest.approx(0.4)
    assert predicted_iou(margin=1.0, separation=1.0, border=0.0, num_classes=0, skill=0.0) == 1, (
        "all background, whatever it knows"
    )
