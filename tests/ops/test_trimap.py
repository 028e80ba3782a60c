import numpy as np
import pytest

from raypipe.ops.trimap import make_trimap


def stack(winners: list[int], *, channels: int = 3, side: int = 8) -> np.ndarray:
    """One row of cells, each won by a channel; -1: no score at all."""
    scores = np.zeros((channels, side, side * len(winners)), np.float32)
    for cell, winner in enumerate(winners):
        if winner >= 0:
            scores[:, :, cell * side : (cell + 1) * side] = 0.1
            scores[winner, :, cell * side : (cell + 1) * side] = 0.9
    return scores


def test_convention_truth_table() -> None:
    low = [1, 2, 0, 0, 1, 1, -1, 0]
    high = [1, 2, 1, 0, 0, 2, -1, 2]
    trimap = make_trimap(stack(low), stack(high), [7, 15])
    assert trimap.dtype == np.uint8
    assert trimap.tolist() == [[7, 15, 255, 0, 0, 7, 255, 255]]


def test_empty_in_one_stack_only_is_no_padding() -> None:
    assert make_trimap(stack([1]), stack([-1]), [7, 15]).tolist() == [[0]]


def test_pools_before_the_argmax() -> None:
    """Most pixels favour the background slightly, few the object strongly: the mean decides."""
    scores = np.empty((2, 8, 8), np.float32)
    scores[0], scores[1] = 0.5, 0.4
    scores[:, :2] = np.array([0.0, 1.0])[:, None, None]
    assert make_trimap(scores, scores, [3]).tolist() == [[3]]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_averages_over_real_pixels_only(dtype: type) -> None:
    """The last cells hold few pixels, whose scores exceed the threshold only if no zeros dilute them."""
    scores = np.zeros((2, 9, 9), dtype)
    scores[1] = 3e-5
    assert make_trimap(scores, scores, [4]).tolist() == [[4, 4], [4, 4]]


def test_no_class_is_background() -> None:
    ones = np.ones((1, 10, 20), np.float32)
    assert make_trimap(ones, ones, []).tolist() == [[0, 0, 0], [0, 0, 0]]


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_class_ids_as_arrays(dtype: type) -> None:
    assert make_trimap(stack([1, 2]), stack([1, 2]), np.array([9, 254], dtype)).tolist() == [[9, 254]]


def test_stacks_differ() -> None:
    with pytest.raises(ValueError, match="both need 3 channels"):
        make_trimap(stack([1]), stack([1], channels=2), [1, 2])


def test_channels_and_class_ids_differ() -> None:
    with pytest.raises(ValueError, match="both need 2 channels"):
        make_trimap(stack([1]), stack([1]), [1])


@pytest.mark.parametrize("class_id", [0, 255])
def test_class_id_out_of_range(class_id: int) -> None:
    with pytest.raises(ValueError, match=r"expected class_ids in 1\.\.254"):
        make_trimap(stack([1]), stack([1]), [1, class_id])
