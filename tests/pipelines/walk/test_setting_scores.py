"""What is made of the scores of settings, without Ray; `test_sweep.py` has them from a stream."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.config import load_config
from raypipe.pipelines.walk.setting_scores import SettingScores, choose
from raypipe.schema import SETTINGS, columns
from raypipe.stages.walk_scores import SCORES, Setting

GIVEN = [Setting(alpha, 8.0, 16, 5) for alpha in (8.0, 32.0)]


def scored(name: str, hits: tuple[int, int] | None) -> dict[str, Any]:
    """An image of class 1 whose 10 pixels show it, of which each setting finds some; None where nobody knows that."""
    row = {"image_id": name, "class_ids": [1], "feature_separations": [0.4, 0.5], "colour_separations": [0.4, 0.5]}
    if hits is None:
        return row | {"hits": None, "predicted": None, "truth_ids": None, "truth_pixels": None}
    found = np.array([[0, number] for number in hits], "<i4")
    predicted = np.array([[10 - number, number] for number in hits], "<i4")
    return row | {"hits": found.tobytes(), "predicted": predicted.tobytes(), "truth_ids": [1], "truth_pixels": [10]}


def scores_of(*rows: dict[str, Any]) -> SettingScores:
    schema = columns(SETTINGS, "image_id", "class_ids", *SCORES)
    return SettingScores(pa.Table.from_pylist(list(rows), schema=schema), GIVEN, num_classes=2)


def test_true_masks_of_images_in_quarantine_are_missed_by_name() -> None:
    config = load_config("{manifest: m, out: o, sweep.num_labelled: 3}")
    known = [scored(str(number), (9, 1)) for number in range(3)]
    assert choose(scores_of(*known, scored("a", None)), config).index == 0
    with pytest.raises(ValueError, match="num_labelled is 3, but 2 of the 3 scored images have a true mask"):
        choose(scores_of(*known[:2], scored("a", None)), config)
