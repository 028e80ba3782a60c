import numpy as np
import pytest

from raypipe.training.order import epoch_order, num_steps_per_epoch, worker_indices

IDS = [f"image-{index}" for index in range(23)]


def test_order_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [tuple(epoch_order(IDS, seed=seed, epoch=epoch)) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len(set(orders)) == 4


def test_order_depends_on_ids_not_on_their_place_in_the_manifest() -> None:
    order = [IDS[index] for index in epoch_order(IDS, seed=0, epoch=0)]
    reversed_ids = IDS[::-1]
    assert order == [reversed_ids[index] for index in epoch_order(reversed_ids, seed=0, epoch=0)]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_parts_make_the_same_batches(world_size: int) -> None:
    steps = num_steps_per_epoch(len(IDS), 8)
    parts = [
        worker_indices(IDS, seed=0, epoch=0, batch_size=8, rank=rank, world_size=world_size).reshape(steps, -1)
        for rank in range(world_size)
    ]
    batches = np.concatenate(parts, axis=1)
    whole = worker_indices(IDS, seed=0, epoch=0, batch_size=8, rank=0, world_size=1).reshape(steps, 8)
    np.testing.assert_array_equal(np.sort(batches, axis=1), np.sort(whole, axis=1))
    assert set(batches.reshape(-1)) == set(range(23))  # nobody is left out


def test_fewer_images_than_a_batch() -> None:
    assert len(worker_indices(IDS[:3], seed=0, epoch=0, batch_size=8, rank=0, world_size=1)) == 8
