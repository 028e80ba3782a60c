"""Turns a region into polygons, and a polygon with holes into one without.

Conventions: corners are (x, y) between pixels: pixel (row r, column c) is the square from (c, r) to (c + 1, r + 1).
The region is then exactly the pixels whose middles lie in the polygons by the even-odd rule. Outer rings run clockwise
on the screen, holes anticlockwise.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Ring = NDArray[np.float64]
"""(N, 2) corners x, y; the last corner is joined to the first."""

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Changes of (row, column) by a step east, south, west and north."""


def trace_rings(pixels: NDArray[np.bool_]) -> list[Ring]:
    """Returns the rings around a region and its holes, exactly and by their corners only.

    Each pixel side between inside and outside is a step with the inside on its right. Where two pixels touch at a
    corner, the path turns left, so that they stay one region.

    Args:
        pixels: (H, W).
    """
    height, width = pixels.shape
    padded = np.pad(pixels, 1)
    inside = padded[1:-1, 1:-1]
    leaving = np.zeros((4, height + 1, width + 1), bool)
    leaving[0, :-1, :-1] = inside & ~padded[:-2, 1:-1]
    leaving[1, :-1, 1:] = inside & ~padded[1:-1, 2:]
    leaving[2, 1:, 1:] = inside & ~padded[2:, 1:-1]
    leaving[3, 1:, :-1] = inside & ~padded[1:-1, :-2]
    stride = width + 1
    size = (height + 1) * stride
    steps = leaving.reshape(4, size)
    ways = bytearray((steps * np.array([[1], [2], [4], [8]])).sum(axis=0).astype(np.uint8).tobytes())
    moves = [row * stride + column for row, column in _STEPS]
    # Every ring has a step east that follows one north: a corner to start at.
    starts = np.flatnonzero(steps[0])
    return [_follow(int(start), ways, moves, stride) for start in starts if ways[start] & 1]


def _follow(start: int, ways: bytearray, moves: list[int], stride: int) -> Ring:
    """Returns the ring that starts eastward at a corner, and removes its steps from `ways`."""
    corners: list[int] = []
    at, heading = start, 0
    last = -1
    while ways[at]:
        for turn in (3, 0, 1):  # left, straight on, right
            heading_next = (heading + turn) % 4
            if ways[at] >> heading_next & 1:
                heading = heading_next
                break
        if heading != last:
            corners.append(at)
        last = heading
        ways[at] &= ~(1 << heading)
        at += moves[heading]
        if at == start and not ways[at] & 1:
            break
    ring = np.array(corners)
    return np.stack([ring % stride, ring // stride], axis=1).astype(np.float64)


def signed_area(ring: Ring) -> float:
    """Returns the area by the shoelace formula: positive for outer rings, negative for holes."""
    following = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum() / 2)


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Leaves out corners that lie at most `tolerance` pixels off the line between those that stay.

    Douglas and Peucker (1973), on the two halves between the first corner and the one farthest from it. A ring that
    would keep fewer than three corners is returned unchanged.
    """
    if tolerance <= 0 or len(ring) <= 4:
        return ring
    closed = np.concatenate([ring, ring[:1]])
    farthest = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    kept = np.zeros(len(closed), bool)
    kept[[0, farthest, len(ring)]] = True
    parts = [(0, farthest), (farthest, len(ring))]
    while parts:
        first, last = parts.pop()
        if last - first < 2:
            continue
        distances = _distances(closed[first + 1 : last], closed[first], closed[last])
        worst = int(distances.argmax())
        if distances[worst] > tolerance:
            middle = first + 1 + worst
            kept[middle] = True
            parts += [(first, middle), (middle, last)]
    simple = closed[:-1][kept[:-1]]
    return simple if len(simple) >= 3 else ring


def _distances(points: Ring, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the distances of points from the line segment between two others."""
    along = end - start
    length = float(along @ along)
    shares = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    offsets = points - start - shares[:, None] * along
    return np.hypot(offsets[:, 0], offsets[:, 1])


def cut_open(rings: list[Ring]) -> Ring:
    """Joins a connected region's outer ring and holes into one polygon.

    A cut leads from the nearest corner of the outer ring to each hole and back along the same way, so its width is 0.
    The polygon therefore holds the same points as the rings, by the even-odd rule and by winding numbers, whatever the
    cuts cross. Cuts run horizontally, then vertically, between pixels: no pixel's middle lies on one, where rounding
    would decide.

    Args:
        rings: the outer ring and the holes, in any order.
    """
    outer = max(rings, key=signed_area)
    holes = [ring for ring in rings if ring is not outer]
    tree = cKDTree(outer)
    joined: dict[int, list[Ring]] = {}
    for hole in holes:
        distances, corners = (np.asarray(found) for found in tree.query(hole))
        nearest = int(distances.argmin())
        corner = int(corners[nearest])
        bend = np.array([[outer[corner, 0], hole[nearest, 1]]])
        around = np.concatenate([bend, hole[nearest:], hole[: nearest + 1], bend, outer[[corner]]])
        joined.setdefault(corner, []).append(around)
    parts: list[Ring] = []
    for index in range(len(outer)):
        parts.append(outer[index : index + 1])
        parts += joined.get(index, [])
    return np.concatenate(parts)
