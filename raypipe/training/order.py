"""Orders the images of an epoch by (seed, epoch, image_id) only, so the workers don't matter.

An epoch always has as many draws as there are images. Without repeat factors each image is drawn once.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from raypipe.data.names import hash_names


class Position(NamedTuple):
    """Where a training goes on: in an epoch, counted from 0, after so many of its steps."""

    epoch: int
    step: int


def repeat_factors(labels: Sequence[Sequence[str]], *, threshold: float) -> NDArray[np.float64]:
    """Computes how many times more often than others an image is drawn, so that rare classes come more often.

        r_i = max over the classes c of image i of max(1, sqrt(threshold / f_c))

    f_c is the share of the images that show class c.

    Args:
        labels: class names of each image.
        threshold: share of the images in 0..1; classes that fewer images show are drawn more often.

    Returns:
        A factor >= 1 for each image.

    Source: Gupta, Dollár and Girshick, "LVIS", CVPR 2019, https://arxiv.org/abs/1908.03195, appendix B.
    """
    counts = Counter(name for names in labels for name in set(names))
    factors = {name: max(1.0, (threshold * len(labels) / count) ** 0.5) for name, count in counts.items()}
    return np.array([max((factors[name] for name in names), default=1.0) for names in labels])


def epoch_order(
    image_ids: pa.Array | pa.ChunkedArray, *, seed: int, epoch: int, factors: NDArray[np.float64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draws the images of an epoch, as many as there are.

    Args:
        image_ids: ids of all images.
        seed: seed of the training.
        epoch: number of the epoch.
        factors: relative frequency of each image, from `repeat_factors`: an image is drawn floor or ceil of
            N · factor / sum(factors) times (systematic sampling); None draws each once.

    Returns:
        Index of the image of each draw, and how many times it was drawn before in this epoch.
    """
    salt = f"{seed}/{epoch}"
    order = np.argsort(hash_names(image_ids, salt), kind="stable")
    if factors is None:
        return order, np.zeros_like(order)
    position = np.cumsum(factors[order]) * (len(order) / factors.sum())
    position[-1] = len(order)
    offset = float(hash_names(pa.array(["offset"]), salt)[0]) / 2**64
    counts = np.diff(np.floor(position + offset), prepend=0.0).astype(np.int64)
    indices = np.repeat(order, counts)
    repeats = np.arange(len(indices)) - np.repeat(np.cumsum(counts) - counts, counts)
    # Without this second shuffle an image's repeats would lie in one batch.
    drawn = image_ids.take(pa.array(indices))
    names = pc.binary_join_element_wise(pa.array(repeats).cast(pa.string()), drawn, "/")
    shuffled = np.argsort(hash_names(names, salt), kind="stable")
    return indices[shuffled], repeats[shuffled]


def num_steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Returns the number of steps in which every image comes at least once."""
    return -(-num_images // batch_size)


def worker_draws(
    image_ids: pa.Array | pa.ChunkedArray,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    rank: int,
    world_size: int,
    factors: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns one worker's draws for each step, in the form of `epoch_order`.

    Step s takes batch_size draws of the epoch's order, from number s · batch_size on. The last batch is filled up from
    the order's start, so that nothing is left out. Worker `rank` takes every world_size-th draw of each batch.
    """
    steps = num_steps_per_epoch(len(image_ids), batch_size)
    indices, repeats = (
        np.resize(draws, (steps, batch_size))[:, rank::world_size].reshape(-1)
        for draws in epoch_order(image_ids, seed=seed, epoch=epoch, factors=factors)
    )
    return indices, repeats
