"""Turns a connected region into one polygon, which every way of filling turns back into the region.

Conventions: corners are (x, y) between pixels: pixel (row r, column c) is the square from (c, r) to (c + 1, r + 1).
Outer rings run clockwise on the screen, holes anticlockwise: the inside is on the right.

Readers fill polygons in two ways. Those that ask for the pixels' middles want a polygon along the pixels' sides.
OpenCV's `fillPoly`, with which ultralytics reads YOLO, wants whole numbers, which name pixels, and paints the polygon's
line, too: of a polygon along the sides it would paint one more row below and one more column on the right. So corners
lie a tenth of a pixel inside: no middle changes sides, and what is left of them when they are cut off to whole numbers
are the region's own outermost pixels.
"""

from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.float64]
"""(N, 2) corners x, y; the last corner is joined to the first."""

INSET = 0.1
"""Pixels between a pixel's side and the polygon: far more than what decimals and 32-bit floats lose in large images."""

_ACROSS = (0.45, 0.278)
"""Pixels from where two pixels touch to the points between which the polygon goes over from one to the other. A reader
that draws points on this line, as ultralytics does, must not hit the corner itself, where rounding would decide: so it
lies at no simple fraction of the line, but at the golden section."""

_STEPS = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Changes of (row, column) by a step east, south, west and north."""


class _Inset(NamedTuple):
    """A ring's corners, moved into the region."""

    points: Ring
    starts: NDArray[np.int64]
    """Index of the point at which the edge behind each of the ring's corners starts."""


class _Joined(NamedTuple):
    """A hole that is joined to a ring."""

    edge: int
    """The ring's corner at which the edge starts that the line to the hole leaves."""
    bridge: Ring
    """(2,): where on that edge."""
    around: Ring
    """The way around the hole and all that is joined to it, which ends where it began."""


def outline(pixels: NDArray[np.bool_], *, tolerance: float = 0.0) -> Ring:
    """Returns a connected region as one polygon, which is open where the region has holes.

    A line of width 0 joins each hole to what is on its left, the outside or another hole. It runs along a row, over
    pixels of the region alone, and so it paints nothing else.

    Args:
        pixels: (H, W); pixels that touch at a corner are connected.
        tolerance: pixels that a corner which is left out may lie off the polygon.
    """
    # From left to right: the outer ring is the first, and what a hole is joined to comes before it.
    rings = sorted(trace_rings(pixels), key=lambda ring: float(ring[:, 0].min()))
    insets = [_inset(ring, pixels) for ring in rings]
    edges = _edges_north(rings)
    joined: list[list[_Joined]] = [[] for _ in rings]
    for number in range(len(rings) - 1, 0, -1):
        entry = _entry(rings[number], insets[number])
        x, y = insets[number].points[entry].tolist()
        row = int(y)
        outside = np.flatnonzero(~pixels[row, : int(x)])
        column = int(outside[-1]) + 1 if len(outside) else 0
        parent, edge = next((ring, corner) for ring, corner, top, bottom in edges[column] if top <= row < bottom)
        around = _walk(insets[number], joined[number], tolerance, first=entry)
        closed = np.concatenate([around, around[:1]])
        joined[parent].append(_Joined(edge, np.array([column + INSET, y]), closed))
    return _walk(insets[0], joined[0], tolerance)


def fill(corners: Ring, *, height: int, width: int) -> NDArray[np.bool_]:
    """Returns the pixels (height, width) whose middles lie in a polygon, by the even-odd rule.

    Args:
        corners: (N, 2), N >= 3; parts outside the picture are cut off.
        height: of the picture.
        width: of the picture.
    """
    ends = np.roll(corners, -1, axis=0)
    # An edge crosses the middles of rows from the first to the one before the last.
    lows, highs = np.minimum(corners[:, 1], ends[:, 1]), np.maximum(corners[:, 1], ends[:, 1])
    first, last = (np.ceil(ys - 0.5).clip(0, height).astype(np.int64) for ys in (lows, highs))
    edges = np.repeat(np.arange(len(corners)), last - first)
    rows = np.arange(len(edges)) - np.repeat(np.cumsum(last - first) - (last - first), last - first) + first[edges]
    (x, y), (to_x, to_y) = corners[edges].T, ends[edges].T
    crossings = x + (rows + 0.5 - y) * (to_x - x) / (to_y - y)
    columns = np.ceil(crossings - 0.5).clip(0, width).astype(np.int64)
    toggles = np.zeros((height, width + 1), np.int32)
    np.add.at(toggles, (rows, columns), 1)
    inside: NDArray[np.bool_] = (np.cumsum(toggles, axis=1)[:, :width] & 1).astype(bool)
    return inside


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
    ways = (steps * np.array([[1], [2], [4], [8]])).sum(axis=0).astype(np.uint8).tobytes()
    moves = [row * stride + column for row, column in _STEPS]
    left = bytearray(ways)
    # Every ring has a step east.
    starts = np.flatnonzero(steps[0])
    return [_follow(int(start), ways, left, moves, stride) for start in starts if left[start] & 1]


def _follow(start: int, ways: bytes, left: bytearray, moves: list[int], stride: int) -> Ring:
    """Returns the ring that starts eastward at a corner.

    Args:
        start: the corner.
        ways: the steps from each corner, a bit each.
        left: those that no ring has; the ring's are taken out.
        moves: from a corner to the next one, by heading.
        stride: corners a row.
    """
    corners: list[int] = []
    at, heading, last = start, 0, -1
    while left[at] >> heading & 1:
        left[at] &= ~(1 << heading)
        if heading != last:
            corners.append(at)
        last = heading
        at += moves[heading]
        # Left, straight on or right: what the ring does here is the same when it comes back to its start.
        heading = next(way for way in ((heading + 3) % 4, heading, (heading + 1) % 4) if ways[at] >> way & 1)
    if heading == last and corners[0] == at:
        del corners[0]  # it started on a side
    ring = np.array(corners)
    return np.stack([ring % stride, ring // stride], axis=1).astype(np.float64)


def _inset(ring: Ring, pixels: NDArray[np.bool_]) -> _Inset:
    """Moves a ring's corners into the region.

    Where two pixels touch at the corner, the ring goes over from one to the other, and each gets a point of its own.
    """
    leaving = np.sign(np.roll(ring, -1, axis=0) - ring)
    arriving = np.roll(leaving, 1, axis=0)
    before, behind = (INSET * np.stack([-step[:, 1], step[:, 0]], axis=1) for step in (arriving, leaving))
    moved = ring + before + behind
    columns, rows = np.floor(moved).astype(int).T
    touching = ~pixels[rows, columns]
    points = np.repeat(moved, 1 + touching, axis=0)
    starts = np.cumsum(1 + touching) - 1
    points[starts[touching] - 1] = (ring + _ACROSS[0] * (before / INSET - arriving))[touching]
    points[starts[touching]] = (ring + _ACROSS[1] * (behind / INSET + leaving))[touching]
    return _Inset(points, starts)


def _edges_north(rings: Sequence[Ring]) -> dict[int, list[tuple[int, int, int, int]]]:
    """The edges that run north, at which rows of the region begin, by their x: ring, corner, and first and last row."""
    found: dict[int, list[tuple[int, int, int, int]]] = {}
    for number, ring in enumerate(rings):
        ends = np.roll(ring, -1, axis=0)[:, 1].astype(int).tolist()
        for corner, (x, bottom) in enumerate(ring.astype(int).tolist()):
            if ends[corner] < bottom:
                found.setdefault(x, []).append((number, corner, ends[corner], bottom))
    return found


def _entry(hole: Ring, inset: _Inset) -> int:
    """Index of the point of a hole at which a line from its left arrives: the upper end of its leftmost side."""
    upper = np.where(hole[:, 0] == hole[:, 0].min(), hole[:, 1], np.inf).argmin()
    return int(inset.starts[upper])


def _walk(inset: _Inset, joined: Sequence[_Joined], tolerance: float, *, first: int = 0) -> Ring:
    """Returns the way around a ring from its point `first` on, and around all that is joined to it."""
    ordered = sorted(joined, key=lambda hole: (inset.starts[hole.edge], -hole.bridge[1]))
    places = np.array([inset.starts[hole.edge] + 1 for hole in ordered], dtype=np.int64)
    bridges = np.array([hole.bridge for hole in ordered]).reshape(-1, 2)
    points = np.insert(inset.points, places, bridges, axis=0)
    start = first + int((places <= first).sum())
    bridges_at = places + np.arange(len(places))
    kept = np.roll(keep_corners(points, tolerance, fixed=[start, *bridges_at.tolist()]), -start)
    points = np.roll(points, -start, axis=0)
    parts, begin = [], 0
    for end, hole in sorted(
        zip(((bridges_at - start) % len(points)).tolist(), ordered, strict=True), key=lambda at: at[0]
    ):
        parts += [points[begin : end + 1][kept[begin : end + 1]], hole.around, points[end : end + 1]]
        begin = end + 1
    return np.concatenate([*parts, points[begin:][kept[begin:]]])


def keep_corners(ring: Ring, tolerance: float, *, fixed: Collection[int] = ()) -> NDArray[np.bool_]:
    """Returns True for the corners that stay: those left out lie at most `tolerance` pixels off the line between these.

    Douglas and Peucker (1973), on the parts between the fixed corners, the first one and the one farthest from it. All
    stay where fewer than three would.

    Args:
        ring: the corners.
        tolerance: in pixels.
        fixed: indices of corners that stay.
    """
    if tolerance <= 0 or len(ring) <= 4:
        return np.ones(len(ring), bool)
    closed = np.concatenate([ring, ring[:1]])
    farthest = int(((ring - ring[0]) ** 2).sum(axis=1).argmax())
    ends = sorted({0, farthest, len(ring), *fixed})
    kept = np.zeros(len(closed), bool)
    kept[ends] = True
    parts = list(pairwise(ends))
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
    return kept[:-1] if kept[:-1].sum() >= 3 else np.ones(len(ring), bool)


def _distances(points: Ring, start: NDArray[np.float64], end: NDArray[np.float64]) -> NDArray[np.float64]:
    """Returns the distances of points from the line segment between two others."""
    along = end - start
    length = float(along @ along)
    shares = np.clip((points - start) @ along / length, 0, 1) if length else np.zeros(len(points))
    offsets = points - start - shares[:, None] * along
    return np.hypot(offsets[:, 0], offsets[:, 1])
