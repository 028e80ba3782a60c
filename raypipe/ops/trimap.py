"""Makes trimaps, which label cells as surely background, surely an object, or undecided.

A small alpha gives a strong background: what still wins against it is surely an object. A large alpha gives a weak
background: where it still wins, the cell is surely background. Both refined score stacks are pooled to the feature
grid; `low` and `high` are the winning channels of each cell:

    (low, high) = (c, c) -> c    (0, c) -> 255    (0, 0) -> 0    (c, 0) -> 0    no score at all (padding) -> 255

Conventions. Channel 0 is the background, channel k the class `class_ids[k - 1]`; the result holds class ids, 255 is
ignore.

Source: AffinityNet, https://arxiv.org/abs/1803.10464, §3.3; the table is that of the authors' released code.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from raypipe.ops.cam import pool_to_grid
from raypipe.schema import BACKGROUND, IGNORE, MAX_CLASSES

_EMPTY = 1e-5
"""A cell lies in the padding if all its scores are below this."""


def make_trimap(
    low: Float[np.ndarray, "channels H W"],
    high: Float[np.ndarray, "_channels _H _W"],
    class_ids: Sequence[int] | Int[np.ndarray, " K"] | UInt8[np.ndarray, " K"],
    *,
    stride: int = 8,
) -> UInt8[np.ndarray, "h w"]:
    """Labels the cells of the feature grid for training the affinity.

    Args:
        low: scores with the strong background (alpha_low), background first.
        high: scores with the weak background (alpha_high), in the same channels.
        class_ids: ids (1..254) of the channels after the background.
        stride: pixels per grid cell; cells average over real pixels only.

    Returns:
        Class ids on a grid of (ceil(H / stride), ceil(W / stride)) cells, 255 where the two disagree or no channel
        scores.

    Raises:
        ValueError: the stacks differ in shape, the channels don't match class_ids, or an id isn't in 1..254.
    """
    if low.shape != high.shape or len(low) != 1 + len(class_ids):
        raise ValueError(
            f"low has shape {low.shape}, high {high.shape}; both need {1 + len(class_ids)} channels: "
            f"background and the {len(class_ids)} classes of class_ids, on the same pixels"
        )
    ids = np.array([BACKGROUND, *class_ids])
    if len(class_ids) and not (ids[1:].min() > BACKGROUND and ids[1:].max() <= MAX_CLASSES):
        raise ValueError(f"expected class_ids in 1..{MAX_CLASSES}, got {ids[1:].tolist()}")
    pooled_low, pooled_high = (
        pool_to_grid(torch.from_numpy(np.ascontiguousarray(scores)), stride=stride).numpy() for scores in (low, high)
    )
    winner_low, winner_high = ids[pooled_low.argmax(axis=0)], ids[pooled_high.argmax(axis=0)]
    trimap = np.where(winner_low == BACKGROUND, IGNORE, winner_low)
    trimap[winner_high == BACKGROUND] = BACKGROUND
    trimap[np.maximum(pooled_low, pooled_high).max(axis=0) < _EMPTY] = IGNORE
    return trimap.astype(np.uint8)


def hide_unknown(
    trimap: UInt8[np.ndarray, "h w"],
    known: Bool[Tensor, "K H W"],
    class_ids: Sequence[int] | Int[np.ndarray, " K"] | UInt8[np.ndarray, " K"],
    *,
    stride: int = 8,
) -> UInt8[np.ndarray, "h w"]:
    """Undecides the cells of a trimap whose label nobody has looked at: refinement spreads labels beyond what is known.

    A cell keeps a class where a part of it is known of that class, and background where a part of it is known of
    every class: an unknown class may be there.

    Args:
        trimap: of `make_trimap`.
        known: where the maps that it was made of are known, on the pixels of their stacks.
        class_ids: of the K maps.
        stride: pixels per grid cell.

    Returns:
        The trimap with 255 in the other cells.
    """
    height, width = known.shape[1:]
    filled = F.pad(known.float(), (0, -width % stride, 0, -height % stride))
    of_class = F.max_pool2d(filled, stride).bool().numpy()
    hidden = np.where(trimap == BACKGROUND, ~of_class.all(axis=0), trimap != IGNORE)
    for class_id, seen in zip(class_ids, of_class, strict=True):
        hidden &= ~((trimap == class_id) & seen)
    return np.where(hidden, np.uint8(IGNORE), trimap)
