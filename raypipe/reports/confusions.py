"""Shows which classes are confused: a heat map, and a list of the biggest confusions.

Conventions: rows are the truth, columns the masks, background first. A row's shares sum to 1.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from raypipe.reports.page import render_page

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


def heat_map(matrix: NDArray[np.int64], names: Sequence[str], *, description: str) -> Markup:
    """Draws the shares of each row of a matrix as an <svg> element in the page's colours.

    Args:
        matrix: (C + 1, C + 1) pixels.
        names: class names of all rows.
        description: text for screen readers.
    """
    ids = shown_classes(matrix)
    shown = [names[class_id] for class_id in ids]
    shares = row_shares(matrix)[np.ix_(ids, ids)]
    cells = [(row, column, float(shares[row, column])) for row, column in np.argwhere(shares >= _LEAST_SHARE).tolist()]
    left = 12 + 6.2 * max(map(len, shown), default=0)
    svg = render_page("heat.html", names=shown, cells=cells, left=left, cell=_CELL, description=description)
    return Markup(svg)  # noqa: S704 - the template escapes the names
