from typing import Any

import numpy as np
import pytest

from raypipe.artifacts import Artifact
from raypipe.data.arrays import encode_cam
from raypipe.stages.score_settings import ScoreSettings
from raypipe.stages.store_cells import STORED, StoreCells, stored_image
from raypipe.stages.walk_scores import Setting, WalkScores

SETTINGS = tuple(Setting(alpha, 4.0, t, radius) for alpha in (2.0, 16.0) for t in (0, 16) for radius in (3, 5))
WALK: dict[str, Any] = {"settings": SETTINGS, "stride": 4, "count_padding": False, "cam_stride": 4, "choice": "any"}
IMAGES: dict[str, Any] = {"max_side": 1024, "precision": "fp32"}


@pytest.fixture
def row(jpeg: bytes) -> dict[str, Any]:
    cam = np.random.default_rng(0).random((2, 16, 21)).astype(np.float32)
    return {
        "image_id": "a",
        "image": jpeg,
        "class_ids": [2, 7],
        "cam": encode_cam(cam),
        "cam_height": 16,
        "cam_width": 21,
        "height": 61,
        "width": 83,
        "original_height": 61,
        "original_width": 83,
        "mask_uri": None,
    }


def stored(uri: str, row: dict[str, Any]) -> dict[str, Any]:
    stage = StoreCells(affinity=Artifact(uri, "a"), radius=5, **IMAGES)
    stage.setup("cpu")
    return row | stage.process(row)


def test_walks_of_stored_cells_score_as_those_of_the_image(affinity_uri: str, row: dict[str, Any]) -> None:
    direct = ScoreSettings(affinity=Artifact(affinity_uri, "a"), num_classes=9, **WALK, **IMAGES)
    direct.setup("cpu")
    expected, found = direct.process(row), WalkScores(**WALK).score(stored_image(stored(affinity_uri, row)))
    assert found["colour_separations"] == expected["colour_separations"]  # affinities are stored as they are
    np.testing.assert_allclose(found["feature_separations"], expected["feature_separations"], rtol=1e-3)
    assert len(set(found["colour_separations"])) > 2


def test_an_image_without_labels_has_no_cells(affinity_uri: str, row: dict[str, Any]) -> None:
    out = stored(affinity_uri, row | {"class_ids": [], "cam": b""})
    assert all(out[name] is None for name in STORED.names)
    assert stored_image(out).cells is None


def test_a_radius_that_is_not_stored_is_refused(affinity_uri: str, row: dict[str, Any]) -> None:
    scores = WalkScores(**WALK | {"settings": (Setting(4.0, 4.0, 8, 6),)})
    with pytest.raises(ValueError, match="have the radius 5, and 6 was asked for"):
        scores.score(stored_image(stored(affinity_uri, row)))
