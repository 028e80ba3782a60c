r"""Refits class activation maps: a linear layer learns, of all images together, from the cells that they are sure of.

    y_i = 8 e_c           if class c has the best map in cell i, and that map exceeds 0.6
    y_i = 8 e_background  if no map exceeds 0.25; other cells teach nothing
    W   = argmin_W  sum_i |W x_i - y_i|^2 + lambda N |W|^2,       M_c = softmax_c(W x)   over background and labels

x: the features of a cell and a one; N: cells that teach. A class activation map says what tells an image's class; what
its surroundings look like it says nowhere. In many images together the cells without any map show that, so that a part
of an object that no label needs is told from it. The result is a map of the classes with the background's beside it.

Source: ridge regression, Hoerl and Kennard, Technometrics 1970, on seeds as Kolesnikov and Lampert, "Seed, Expand and
Constrain", ECCV 2016, §3.1, take them from the maps; numbers in benchmarks/refit.md.
"""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from scipy.linalg import solve
from torch import Tensor

from raypipe.schema import BACKGROUND, IGNORE

SURE = 0.6
"""Normalised map above which a cell surely shows the class."""
EMPTY = 0.25
"""Value that no map exceeds where a cell surely is background."""
LAM = 1e-3
"""Strength of the ridge for each cell that teaches."""
TARGET = 8.0
"""Score that a cell's own label aims at, where the others aim at 0: the softmax of scores up to 1 would be flat."""

_CELLS_AT_A_TIME = 4096
"""Turned into float64."""


def sure_cells(
    cams: Float[Tensor, "K h w"], class_ids: Iterable[int], *, sure: float = SURE, empty: float = EMPTY
) -> UInt8[np.ndarray, "h w"]:
    """Labels the cells that normalised maps are sure of.

    Args:
        cams: maps in [0, 1] of the K classes present.
        class_ids: of the maps.
        sure: the best map of a cell that surely shows its class lies above.
        empty: no map of a cell that surely is background lies above.

    Returns:
        Class ids, 0 for background, 255 where the maps are unsure. Without any map all is background.
    """
    if len(cams) == 0:
        return np.full(cams.shape[1:], BACKGROUND, np.uint8)
    best, index = cams.max(dim=0)
    ids = torch.tensor([*class_ids], dtype=torch.uint8)
    labels = torch.where(best > sure, ids[index], IGNORE)
    return labels.masked_fill(best <= empty, BACKGROUND).numpy()


def fit_cells(
    features: Float[np.ndarray, "N D"],
    labels: UInt8[np.ndarray, " N"],
    *,
    num_labels: int,
    lam: float = LAM,
    target: float = TARGET,
) -> Float[np.ndarray, "num_labels D+1"]:
    """Solves for the weights.

    Args:
        features: of the cells that teach.
        labels: 0 for background, c for the class of id c.
        num_labels: classes and background.
        lam: strength of the ridge for each cell.
        target: score of a cell's own label.

    Returns:
        W; the last of each row is the one's. Rows of labels that no cell has are zero but for rounding.

    Raises:
        ValueError: there are no cells, or a feature isn't finite.
    """
    if not len(labels):
        raise ValueError("no cell to learn from: the class activation maps are sure of none")
    size = features.shape[1] + 1
    squares, products = lam * len(labels) * np.eye(size), np.zeros((size, num_labels))
    for start in range(0, len(labels), _CELLS_AT_A_TIME):
        some = features[start : start + _CELLS_AT_A_TIME].astype(np.float64)
        if not np.isfinite(some).all():
            raise ValueError("some cells' features are infinite or nan: look at the classifier's precision")
        x = np.concatenate([some, np.ones((len(some), 1))], axis=1)
        squares += x.T @ x
        products += x.T @ (target * np.eye(num_labels))[labels[start : start + _CELLS_AT_A_TIME]]
    weights: Float[np.ndarray, "num_labels D+1"] = solve(squares, products, assume_a="pos").T
    return weights


def softmax_maps(scores: Float[Tensor, "channels h w"]) -> Float[Tensor, "channels-1 h w"]:
    """Maps in [0, 1] of the classes present, of scores with the background's first.

    Args:
        scores: W x of the background and the K classes.

    Returns:
        The softmax without the background's: where the maps' sum is below one half, background is likelier than not.
    """
    return scores.softmax(dim=0)[1:]
