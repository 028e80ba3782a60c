"""The order of images in an epoch: a function of (seed, epoch, image_id), whatever the workers."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def epoch_order(image_ids: Sequence[str], *, seed: int, epoch: int) -> NDArray[np.int64]:
    """Indices of the images in the epoch's order."""
    keys = [
        hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        for image_id in image_ids
    ]
    return np.argsort(np.array(keys), kind="stable")


def num_steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Steps in which every image comes at least once."""
    return -(-num_images // batch_size)


def worker_indices(
    image_ids: Sequence[str], *, seed: int, epoch: int, batch_size: int, rank: int, world_size: int
) -> NDArray[np.int64]:
    """Indices of one worker's images, step by step.

    Step s takes images s · batch_size onwards of the epoch's order; the last batch is filled up from the order's start,
    so that no image is left out. Worker `rank` takes every world_size-th image of each batch.
    """
    order = epoch_order(image_ids, seed=seed, epoch=epoch)
    steps = num_steps_per_epoch(len(order), batch_size)
    batches = np.resize(order, (steps, batch_size))
    return batches[:, rank::world_size].reshape(-1)
