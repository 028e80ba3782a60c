"""Outlines of a region as polygons, and one polygon with its holes cut open.

Conventions: corners are (x, y) between pixels: pixel (row r, column c) is the square from (c, r) to (c + 1, r + 1). So
what holds the middle of a pixel, by the even-odd rule, is exactly the region. Outer rings run clockwise as the image is
seen, holes the other way.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Ring = NDArray[np.float64]
"""(N, 2): corners x, y; the last is joined to the first."""

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Row and column of the steps east, south, west, north."""


def trace_rings(pixels: NDArray[np.bool_]) -> list[Ring]:
    """The rings around a region and its holes; corners only, exact.

    Each side of a pixel that parts inside from outside is a step with the inside on its right. Where two pixels touch
    at a corner the way turns left, so that they stay one region.

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
    """Walks from a corner eastward until there is no way left; takes the ways it has gone."""
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
    """Area by the shoelace formula: positive for outer rings, negative for holes."""
    following = np.roll(ring, -1, axis=0)
    return float((ring[:, 0] * following[:, 1] - following[:, 0] * ring[:, 1]).sum() / 2)


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Leaves out corners that lie less than `tolerance` pixels off the line between those that stay.

    Douglas and Peucker (1973), on the two halves between the first corner and the one farthest from it. Rings of which
    fewer than three corners would stay are kept.
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
    """Distances of points from the line segment between two others."""
    along = end - start
    length = float(along @ along)
    shares = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    offsets = points - start - shares[:, None] * along
    return np.hypot(offsets[:, 0], offsets[:, 1])


def cut_open(rings: list[Ring]) -> Ring:
    """One polygon of a connected region's outer ring and holes.

    Each hole is joined to the nearest corner of the outer ring by a cut that is gone there and back, so its width is 0.
    By the even-odd rule and by winding numbers alike, the polygon holds what the rings hold, whatever the cuts cross.
    Cuts run across, then down: between pixels, so that no pixel's middle lies on one, where rounding would decide.

    Args:
        rings: one of them outer.
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
