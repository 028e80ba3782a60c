from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from scipy import ndimage

from raypipe.formats.yolo.polygons import INSET, keep_corners, outline, trace_rings

Filler = Callable[[NDArray[np.float64], tuple[int, ...]], NDArray[np.bool_]]


def fill(ring: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Pixels whose middles are in the polygon by the even-odd rule, as matplotlib counts."""
    rows, columns = np.indices(shape)
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    return Outline(ring).contains_points(middles).reshape(shape)


def fill_by_opencv(ring: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """What ultralytics makes of a line of YOLO's: 32-bit shares, cut off to whole pixels, filled with their outline."""
    shares = np.round(ring / (shape[1], shape[0]), 8).astype(np.float32)
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [(shares * np.array([shape[1], shape[0]], np.float32)).astype(np.int32)], color=1)
    return mask == 1


def signed_area(ring: NDArray[np.float64]) -> float:
    x, y = ring.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def components(pixels: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    labels, number = ndimage.label(pixels, np.ones((3, 3)))
    return [labels == label for label in range(1, number + 1)]


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


def test_an_island_that_touches_the_rim_of_a_hole_is_no_ring_of_its_own() -> None:
    pixels = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], bool)
    assert [signed_area(ring) for ring in trace_rings(pixels)] == [25, -7]


def test_polygons_lie_a_tenth_of_a_pixel_inside() -> None:
    polygon = outline(np.array([[0, 0, 0], [0, 1, 1]], bool))
    np.testing.assert_allclose(polygon, [[1.1, 1.1], [2.9, 1.1], [2.9, 1.9], [1.1, 1.9]])


def test_a_line_is_gone_to_a_hole_and_back() -> None:
    polygon = outline(np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]], bool))
    outer, bridge = [[0.1, 0.1], [2.9, 0.1], [2.9, 2.9], [0.1, 2.9]], [0.1, 0.9]
    hole = [[0.9, 0.9], [0.9, 2.1], [2.1, 2.1], [2.1, 0.9], [0.9, 0.9]]
    np.testing.assert_allclose(polygon, [*outer, bridge, *hole, bridge])


SHAPES = {
    "a rectangle": np.pad(np.ones((20, 44), bool), 3),
    "a disc of radius 5": np.hypot(*(np.indices((13, 13)) - 6)) <= 5,
    "a line of one pixel": np.pad(np.ones((1, 30), bool), 2),
    "a column of one pixel": np.pad(np.ones((30, 1), bool), 2),
    "a diagonal": np.eye(12, dtype=bool),
    "one pixel": np.pad(np.ones((1, 1), bool), 2),
    "a ring": (np.hypot(*(np.indices((40, 40)) - 20)) <= 15) & (np.hypot(*(np.indices((40, 40)) - 20)) > 8),
    "a ring of one pixel": np.pad(np.pad(np.zeros((6, 6), bool), 1, constant_values=True), 2),
    "a chessboard": np.indices((9, 9)).sum(axis=0) % 2 == 0,
    "a sieve": ~np.pad(np.indices((15, 15)).sum(axis=0) % 2 == 1, 1, constant_values=False),
    "holes that touch": ~np.pad(np.eye(7, dtype=bool), 2),
    "a comb": np.pad(np.arange(21) % 2 == 0, 1)[None].repeat(6, 0) | (np.arange(6) == 0)[:, None],
    "everything": np.ones((5, 7), bool),
    "a hole in an island in a hole": np.kron(
        np.array([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 0, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]]), np.ones((3, 3))
    ).astype(bool),
}


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("fill", [fill, fill_by_opencv])
def test_shapes_come_back_whatever_fills_them(name: str, fill: Filler) -> None:
    for component in components(SHAPES[name]):
        np.testing.assert_array_equal(fill(outline(component), component.shape), component)


@settings(deadline=None, derandomize=True)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.booleans()))
def test_any_component_comes_back_whatever_fills_it(pixels: NDArray[np.bool_]) -> None:
    for component in components(pixels):
        rings = trace_rings(component)
        assert sum(signed_area(ring) > 0 for ring in rings) == 1
        assert sum(map(signed_area, rings)) == component.sum()
        polygon = outline(component)
        np.testing.assert_array_equal(fill(polygon, pixels.shape), component)
        np.testing.assert_array_equal(fill_by_opencv(polygon, pixels.shape), component)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_smooth_components_of_large_images_come_back(seed: int, sigma: int) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(211, 307)), sigma)
    for component in components(noise > 0.2 * noise.std()):
        np.testing.assert_array_equal(fill_by_opencv(outline(component), component.shape), component)


def test_far_corners_of_a_very_wide_image_come_back() -> None:
    pixels = np.zeros((3, 60_000), bool)
    pixels[1, 59_990:59_997] = True
    np.testing.assert_array_equal(fill_by_opencv(outline(pixels), pixels.shape), pixels)


def test_a_box_around_the_corners_has_an_area() -> None:
    for shape in ((1, 1), (1, 9), (9, 1)):
        low, high = (getattr(outline(np.ones(shape, bool)), name)(axis=0) for name in ("min", "max"))
        np.testing.assert_allclose(high - low, np.array(shape[::-1]) - 2 * INSET)


def test_corners_within_the_tolerance_are_left_out() -> None:
    stairs = np.tri(40, dtype=bool)
    assert len(outline(stairs)) == 82
    simple = outline(stairs, tolerance=1.0)
    assert len(simple) <= 5
    wrong = fill(simple, stairs.shape) != stairs
    assert wrong[ndimage.distance_transform_edt(stairs) > 1.5].sum() == 0
    assert wrong.mean() < 0.03


@pytest.mark.parametrize("tolerance", [0.5, 1.0])
@pytest.mark.parametrize("fill", [fill, fill_by_opencv])
def test_holes_stay_open_with_a_tolerance(tolerance: float, fill: Filler) -> None:
    middles = np.indices((80, 80)) - 40
    region = (
        (np.hypot(*middles) <= 36) & ~(np.hypot(middles[0], middles[1] - 9) <= 7) & ~(np.hypot(*(middles + 12)) <= 6)
    )
    found = fill(outline(region, tolerance=tolerance), region.shape)
    assert (found & region).sum() / (found | region).sum() > 0.96
    assert not found[40, 49]
    assert not found[28, 28]


@pytest.mark.parametrize("tolerance", [5.0, 100.0])
def test_a_ring_keeps_three_corners(tolerance: float) -> None:
    for pixels in (np.ones((1, 1), bool), np.ones((1, 9), bool), np.tri(4, dtype=bool)):
        (ring,) = trace_rings(pixels)
        assert keep_corners(ring, tolerance).sum() >= 3
        assert len(outline(pixels, tolerance=tolerance)) >= 3
