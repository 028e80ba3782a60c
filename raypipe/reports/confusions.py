"""Shows which classes are confused: a heat map, and a list of the biggest confusions.

Conventions: rows are the truth, columns the masks, background first. A row's shares sum to 1.
"""

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

_CELL = 18
_LEAST_SHARE = 0.005
"""Smallest share that is drawn; smaller ones would be invisible."""

MAX_CLASSES = 41
"""Most classes in a heat map; of more, those that are confused most are shown."""


def row_shares(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """Divides each row by its sum; the row of a class without pixels is 0."""
    shares: NDArray[np.float64] = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    return shares


def biggest_confusions(matrix: NDArray[np.int64], names: Sequence[str], *, number: int = 12) -> list[dict[str, Any]]:
    """Returns the confusions that cost most IoU, with their pixels and their shares of both classes.

    Each has the true class, the mask's class, the pixels, and their shares of the true class and of the mask's class.
    They are ranked by the larger share, since a class loses IoU by pixels that it misses and by pixels that it wrongly
    takes. Between an object and the background, the object's share counts.
    """
    of_truth = row_shares(matrix)
    of_mask = row_shares(matrix.T).T
    rank = np.maximum(of_truth, of_mask)
    rank[0], rank[:, 0] = of_mask[0], of_truth[:, 0]
    np.fill_diagonal(rank, 0)
    order = np.argsort(-rank, axis=None, kind="stable")[:number]
    found = [(int(row), int(column)) for row, column in zip(*np.unravel_index(order, rank.shape), strict=True)]
    return [
        {
            "truth": names[row],
            "mask": names[column],
            "pixels": int(matrix[row, column]),
            "of_truth": float(of_truth[row, column]),
            "of_mask": float(of_mask[row, column]),
        }
        for row, column in found
        if rank[row, column] > 0
    ]


def shown_classes(matrix: NDArray[np.int64]) -> list[int]:
    """Returns the ascending class ids of the heat map: all with pixels, or the background and those confused most."""
    seen = np.flatnonzero(matrix.sum(axis=0) + matrix.sum(axis=1))
    if len(seen) <= MAX_CLASSES:
        return [int(class_id) for class_id in seen]
    lost = 1 - np.diagonal(row_shares(matrix))[seen]
    lost[seen == 0] = 2
    return sorted(int(class_id) for class_id in seen[np.argsort(-lost, kind="stable")[:MAX_CLASSES]])


def heat_map(matrix: NDArray[np.int64], names: Sequence[str], *, description: str) -> str:
    """Draws the shares of each row of a matrix as an <svg> element in the page's colours.

    Args:
        matrix: (C + 1, C + 1) pixels.
        names: class names of all rows.
        description: text for screen readers.
    """
    ids = shown_classes(matrix)
    shares = row_shares(matrix)[np.ix_(ids, ids)]
    left = 12 + 6.2 * max((len(names[class_id]) for class_id in ids), default=0)
    size = _CELL * len(ids)
    side = round(left + size + 4)
    parts = [
        f'<svg role="img" aria-label="{escape(description)}" class="heat" '
        f'viewBox="0 0 {side} {side}" style="min-width: {side}px; max-width: {round(1.5 * side)}px" '
        'xmlns="http://www.w3.org/2000/svg">',
        f'<rect x="{left:.1f}" y="{left:.1f}" width="{size}" height="{size}" fill="var(--soft)"/>',
    ]
    for place, class_id in enumerate(ids):
        name, middle = escape(names[class_id]), left + _CELL * (place + 0.5)
        parts.append(f'<text x="{left - 6:.1f}" y="{middle + 3.5:.1f}" text-anchor="end">{name}</text>')
        turned = f'transform="rotate(-90 {middle:.1f} {left - 6:.1f})"'
        parts.append(f'<text x="{middle:.1f}" y="{left - 2.5:.1f}" {turned}>{name}</text>')
    for row, column in np.argwhere(shares >= _LEAST_SHARE).tolist():
        share, color = shares[row, column], "--series-2" if row == column else "--series-3"
        title = f"{escape(names[ids[row]])} taken for {escape(names[ids[column]])}: {100 * share:.1f} %"
        parts.append(
            f'<rect x="{left + _CELL * column + 0.5:.1f}" y="{left + _CELL * row + 0.5:.1f}" width="{_CELL - 1}" '
            f'height="{_CELL - 1}" fill="var({color})" fill-opacity="{0.1 + 0.9 * share:.2f}">'
            f"<title>{title}</title></rect>"
        )
    return "".join([*parts, "</svg>"])
