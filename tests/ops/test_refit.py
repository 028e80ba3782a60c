import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from raypipe.ops.refit import fit_cells, softmax_maps, sure_cells


def test_sure_cells_by_hand() -> None:
    cams = torch.tensor([[[0.9, 0.5, 0.2], [0.61, 0.25, 0.0]], [[0.8, 0.4, 0.25], [0.95, 0.2, 0.0]]])
    expected = [[7, 255, 0], [9, 0, 0]]
    np.testing.assert_array_equal(sure_cells(cams, [7, 9]), expected)


def test_an_image_of_no_class_is_background() -> None:
    np.testing.assert_array_equal(sure_cells(torch.zeros(0, 2, 3), []), np.zeros((2, 3)))


def test_weights_by_hand() -> None:
    """Cells at 0 and 1 of one feature: without a ridge the line through both, which tells them exactly."""
    weights = fit_cells(np.array([[0.0], [1.0]]), np.array([0, 1], np.uint8), num_labels=2, lam=1e-12, target=1.0)
    np.testing.assert_allclose(weights, [[-1, 1], [1, 0]], atol=1e-6)


def test_weights_with_a_ridge_by_hand() -> None:
    """One cell x = 1 with the one: (A + lam I) w = x y with A of ones, so w = 1 / (2 + lam) twice."""
    weights = fit_cells(np.array([[1.0]]), np.array([1], np.uint8), num_labels=2, lam=0.5, target=1.0)
    np.testing.assert_allclose(weights, [[0, 0], [0.4, 0.4]], atol=1e-12)


def test_they_minimise_what_they_should() -> None:
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(5000, 3)), rng.integers(0, 4, 5000).astype(np.uint8)  # more than one chunk
    weights = fit_cells(features, labels, num_labels=5, lam=0.1, target=3.0)
    x, y = np.concatenate([features, np.ones((5000, 1))], axis=1), 3 * np.eye(5)[labels]

    def loss(tried: np.ndarray) -> float:
        return float(((x @ tried.T - y) ** 2).sum() + 0.1 * 5000 * (tried**2).sum())

    assert all(loss(weights) < loss(weights + 1e-3 * rng.normal(size=weights.shape)) for _ in range(20))
    np.testing.assert_allclose(weights[4], 0, atol=1e-12, err_msg="a label without a cell")


def test_a_target_scales_the_weights() -> None:
    features, labels = np.random.default_rng(2).normal(size=(20, 4)), np.arange(20).astype(np.uint8) % 3
    once, eightfold = (fit_cells(features, labels, num_labels=3, target=target) for target in (1.0, 8.0))
    np.testing.assert_array_equal(eightfold, 8 * once, err_msg="a power of two doesn't round")


def test_how_often_a_cell_is_there_doesn_t_matter_if_all_are() -> None:
    features, labels = np.random.default_rng(1).normal(size=(20, 4)), np.arange(20).astype(np.uint8) % 3
    twice = fit_cells(np.tile(features, (2, 1)), np.tile(labels, 2), num_labels=3)
    np.testing.assert_allclose(twice, fit_cells(features, labels, num_labels=3), atol=1e-10)


def test_bad_cells() -> None:
    with pytest.raises(ValueError, match="sure of none"):
        fit_cells(np.zeros((0, 4), np.float16), np.zeros(0, np.uint8), num_labels=2)
    with pytest.raises(ValueError, match="infinite or nan"):
        fit_cells(np.array([[np.inf]], np.float16), np.zeros(1, np.uint8), num_labels=2)


@given(scores=st.lists(st.floats(-16, 16, width=32), min_size=3, max_size=3))
def test_maps_are_what_the_background_leaves(scores: list[float]) -> None:
    maps = softmax_maps(torch.tensor(scores)[:, None, None])
    assert maps.shape == (2, 1, 1)
    assert float(maps.min()) >= 0
    background = float(torch.tensor(scores).softmax(dim=0)[0])
    assert float(maps.sum()) == pytest.approx(1 - background, abs=1e-5)
