from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_scores, encode_cam
from raypipe.data.checkpoints import Checkpoint, write_checkpoint
from raypipe.data.images import decode_image
from raypipe.networks import build_frozen_features
from raypipe.ops.cam import pool_to_grid, stack_background
from raypipe.ops.cosine_affinity import cosine_affinity
from raypipe.ops.random_walk import propagate
from raypipe.stages.cells import affinity_source
from raypipe.stages.networks import FROZEN
from raypipe.stages.propagate import PropagateCams, grid_scores

ARGS: dict[str, Any] = {
    "radius": 5,
    "alpha": 4.0,
    "beta": 8.0,
    "num_steps": 16,
    "count_padding": False,
    "precision": "fp32",
    "cam_stride": 4,
    "max_side": 1024,
}


@pytest.fixture
def row(jpeg: bytes) -> dict[str, Any]:
    cam = np.random.default_rng(0).random((2, 16, 21)).astype(np.float32)
    return {"image": jpeg, "cam": encode_cam(cam), "class_ids": [1, 2], "cam_height": 16, "cam_width": 21}


def walk(affinity: str | None, row: dict[str, Any], **changes: Any) -> np.ndarray:
    stage = PropagateCams(affinity=None if affinity is None else Artifact(affinity, "a"), **{**ARGS, **changes})
    stage.setup("cpu")
    out = stage.process(row)
    return decode_scores(out["scores"], height=out["grid_height"], width=out["grid_width"])


def test_scores_of_background_and_classes_on_the_grid(affinity_uri: str, row: dict[str, Any]) -> None:
    scores = walk(affinity_uri, row)
    assert scores.shape == (3, 8, 11)
    assert scores.min() >= -1e-5
    assert scores.max() <= 1 + 1e-5


def test_zero_steps_leave_the_input(affinity_uri: str, row: dict[str, Any]) -> None:
    scores = walk(affinity_uri, row, num_steps=0)
    cam = torch.from_numpy(np.frombuffer(row["cam"], np.float16).reshape(2, 16, 21).astype(np.float32))
    np.testing.assert_array_equal(scores, grid_scores(cam, alphas=[4], cam_stride=4).numpy())


def test_a_walk_along_colours_needs_no_checkpoint(row: dict[str, Any]) -> None:
    assert walk(None, row).shape == (3, 8, 11)


def test_a_walk_along_frozen_features_is_one_of_its_own(affinity_uri: str, row: dict[str, Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build_frozen_features("tiny")
    checkpoint = Checkpoint(
        task="affinity",
        backbone="tiny",
        classes=("cat", "dog"),
        preprocessing=network.preprocessing.to_dict(),
        config=FROZEN,
        weights=network.state_dict(),
    )
    write_checkpoint(checkpoint, str(tmp_path))
    scores = walk(str(tmp_path), row)
    pixels = decode_image(row["image"]).pixels
    (cells,) = affinity_source(Artifact(str(tmp_path), "a"), precision="fp32", device="cpu")([pixels])
    affinity = cosine_affinity(cells.features, radius=5)
    start = torch.from_numpy(walk(None, row, num_steps=0))
    expected = propagate(start, affinity, beta=8, num_steps=16).numpy()
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    assert np.abs(scores - walk(affinity_uri, row)).max() > 1e-3


def test_a_checkpoint_of_another_task_is_refused(classifier_uri: str, row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected a checkpoint of task 'affinity', got one of 'classifier'"):
        walk(classifier_uri, row)


def test_a_larger_radius_is_another_walk(affinity_uri: str, row: dict[str, Any]) -> None:
    assert not np.array_equal(walk(affinity_uri, row, radius=2), walk(affinity_uri, row, radius=8))


def test_image_without_labels_is_background(row: dict[str, Any]) -> None:
    scores = walk(None, row | {"cam": b"", "class_ids": []})
    assert scores.shape == (1, 8, 11)
    np.testing.assert_array_equal(scores, 1)


def partial(row: dict[str, Any]) -> dict[str, Any]:
    """One stroke of the first class, one of the background, and nothing known elsewhere."""
    cam = np.full((2, 16, 21), np.nan, np.float32)
    cam[:, :, 1] = [[1], [0]]
    cam[:, :, 9] = 0
    return row | {"cam": encode_cam(cam)}


def test_a_walk_begins_where_something_is_known(row: dict[str, Any]) -> None:
    scores = walk(None, partial(row), num_steps=0)
    assert np.argwhere(scores[1].any(axis=0)).ravel().tolist() == [0]
    assert np.argwhere(scores[0].any(axis=0)).ravel().tolist() == [4]
    assert not scores[2].any()
    assert np.isfinite(walk(None, partial(row))).all()


def test_what_a_walk_hardly_reaches_has_no_score(row: dict[str, Any]) -> None:
    """Two steps reach ten cells at most: beyond them there is nothing but the expansion's error."""
    scores = walk(None, partial(row), num_steps=2, radius=2)
    assert (scores[:, :, 8:] == 0).all()
    assert scores[1][:, 0].min() > 0.01


def test_convention_background_comes_before_pooling() -> None:
    cam = torch.zeros(1, 2, 2)
    cam[0, 0, 0] = 1
    scores = grid_scores(cam, alphas=[2, 1], cam_stride=4)
    np.testing.assert_allclose(scores.flatten(), [0.75, 0.75, 0.25])  # (1 - mean)^2 would be 0.5625
    torch.testing.assert_close(scores[[0, 2]], pool_to_grid(stack_background(cam, alpha=2), stride=2))


def test_rgb_affinity_is_one_inside_a_plain_area() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    affinity = affinity_source(None, precision="fp32", device="cpu")([pixels])[0].affinity(radius=5)
    assert affinity[0, 0, 0] == 1  # cells (0, 0) and (0, 1)
    assert affinity[0, 0, 1] < 0.1  # across the edge


def test_learned_affinity_covers_the_padded_image(affinity_uri: str, jpeg: bytes) -> None:
    pixels = decode_image(jpeg).pixels
    source = affinity_source(Artifact(affinity_uri, "a"), precision="fp32", device="cpu")
    cells = source([pixels])[0]
    assert cells.affinity(radius=5).shape == (34, 8, 11)
    assert cells.features.shape[1:] == (8, 11)


def test_masks_of_classes_that_the_classifier_does_not_know_are_not_believed(row: dict[str, Any]) -> None:
    def predicted(class_ids: list[int], **changes: Any) -> float:
        stage = PropagateCams(affinity=None, **{**ARGS, **changes})
        stage.setup("cpu")
        return stage.process(row | {"class_ids": class_ids})["predicted_iou"]

    trusted = predicted([1, 2])
    assert predicted([1, 3], skills=(0.9, 0.0, 0.9)) == trusted
    assert predicted([1, 2], skills=(0.0, 0.0, 0.9)) == pytest.approx(0.8 / 3)
    assert predicted([1, 2], skills=(0.5, 0.0, 0.9)) == pytest.approx((trusted + 0.8 / 3) / 2)
