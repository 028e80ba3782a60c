import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.formats.yolo.polygons import cut_open, signed_area, simplify, trace_rings


def fill(ring: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose middles are in the polygon by the even-odd rule, as matplotlib counts."""
    rows, columns = np.indices(shape)
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    return Outline(ring).contains_points(middles).reshape(shape)


def test_convention_corners_lie_between_pixels() -> None:
    (ring,) = trace_rings(np.array([[0, 0, 0], [0, 1, 1]], bool))
    assert ring.tolist() == [[1, 1], [3, 1], [3, 2], [1, 2]]
    assert signed_area(ring) == 2


def test_convention_outer_rings_run_clockwise_and_holes_do_not() -> None:
    rings = trace_rings(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    assert [ring.tolist() for ring in rings] == [[[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1]]]
    assert [signed_area(ring) for ring in rings] == [9, -1]


def test_pixels_that_touch_at_a_corner_are_one_ring() -> None:
    (ring,) = trace_rings(np.array([[1, 0], [0, 1]], bool))
    assert len(ring) == 8
    assert signed_area(ring) == 2


def test_cut_is_gone_there_and_back() -> None:
    polygon = cut_open(trace_rings(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool)))
    outer, hole = [[0, 0], [3, 0], [3, 3], [0, 3]], [[1, 2], [2, 2], [2, 1], [1, 1], [1, 2]]
    assert polygon.tolist() == [*outer, [0, 2], *hole, [0, 2], [0, 3]]
    assert signed_area(polygon) == 8


@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.booleans()))
def test_polygons_hold_exactly_their_component(pixels: NDArray[np.bool_]) -> None:
    labels, number = ndimage.label(pixels, np.ones((3, 3)))
    for label in range(1, number + 1):
        component = labels == label
        rings = trace_rings(component)
        assert sum(signed_area(ring) > 0 for ring in rings) == 1
        polygon = cut_open(rings)
        np.testing.assert_array_equal(fill(polygon, pixels.shape), component)
        assert signed_area(polygon) == component.sum()


def test_corners_within_the_tolerance_are_left_out() -> None:
    stairs = np.tri(40, dtype=bool)
    (ring,) = trace_rings(stairs)
    assert len(ring) == 82
    assert len(simplify(ring, 0)) == 82
    simple = simplify(ring, 1.0)
    assert len(simple) <= 5
    wrong = fill(simple, stairs.shape) != stairs
    assert wrong[ndimage.distance_transform_edt(stairs) > 1.5].sum() == 0
    assert wrong.mean() < 0.03


@pytest.mark.parametrize("tolerance", [5.0, 100.0])
def test_a_ring_keeps_three_corners(tolerance: float) -> None:
    for pixels in (np.ones((1, 1), bool), np.ones((1, 9), bool), np.tri(4, dtype=bool)):
        (ring,) = trace_rings(pixels)
        assert len(simplify(ring, tolerance)) >= 3
