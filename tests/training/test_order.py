import numpy as np
import pytest

from raypipe.training.order import epoch_order, num_steps_per_epoch, repeat_factors, worker_draws

IDS = [f"image-{index}" for index in range(23)]


def test_order_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [tuple(epoch_order(IDS, seed=seed, epoch=epoch)[0]) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len(set(orders)) == 4


def test_order_depends_on_ids_not_on_their_place_in_the_manifest() -> None:
    order = [IDS[index] for index in epoch_order(IDS, seed=0, epoch=0)[0]]
    reversed_ids = IDS[::-1]
    assert order == [reversed_ids[index] for index in epoch_order(reversed_ids, seed=0, epoch=0)[0]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_parts_make_the_same_batches(world_size: int) -> None:
    steps = num_steps_per_epoch(len(IDS), 8)
    parts = [
        worker_draws(IDS, seed=0, epoch=0, batch_size=8, rank=rank, world_size=world_size)[0].reshape(steps, -1)
        for rank in range(world_size)
    ]
    batches = np.concatenate(parts, axis=1)
    whole = worker_draws(IDS, seed=0, epoch=0, batch_size=8, rank=0, world_size=1)[0].reshape(steps, 8)
    np.testing.assert_array_equal(np.sort(batches, axis=1), np.sort(whole, axis=1))
    assert set(batches.reshape(-1)) == set(range(23))  # nobody is left out


def test_fewer_images_than_a_batch() -> None:
    assert len(worker_draws(IDS[:3], seed=0, epoch=0, batch_size=8, rank=0, world_size=1)[0]) == 8


def test_repeat_factors_by_hand() -> None:
    labels = [["cat"], ["cat", "boat"], ["cat"], []]
    # cat: 3 of 4 images, above the threshold; boat: 1 of 4, sqrt(0.5 / 0.25).
    np.testing.assert_allclose(repeat_factors(labels, threshold=0.5), [1, 2**0.5, 1, 1])


def test_an_image_named_twice_in_its_labels_counts_once() -> None:
    np.testing.assert_allclose(repeat_factors([["cat", "cat"], []], threshold=1.0), [2**0.5, 1])


@pytest.mark.parametrize("seed", range(5))
def test_draws_follow_the_factors(seed: int) -> None:
    factors = np.linspace(1, 4, len(IDS))
    counts = np.zeros(len(IDS))
    for epoch in range(40):
        indices, repeats = epoch_order(IDS, seed=seed, epoch=epoch, factors=factors)
        assert len(indices) == len(IDS)
        assert len(set(zip(indices.tolist(), repeats.tolist(), strict=True))) == len(IDS)  # never the same crop twice
        drawn = np.bincount(indices, minlength=len(IDS))
        expected = len(IDS) * factors / factors.sum()
        assert (drawn >= np.floor(expected)).all()
        assert (drawn <= np.ceil(expected)).all()
        counts += drawn
    np.testing.assert_allclose(counts / 40, len(IDS) * factors / factors.sum(), atol=0.3)


def test_equal_factors_draw_each_image_once() -> None:
    indices, repeats = epoch_order(IDS, seed=0, epoch=0, factors=np.full(len(IDS), 2.0))
    assert sorted(indices) == list(range(23))
    assert not repeats.any()


def test_convention_draws_depend_on_ids_not_on_their_place() -> None:
    factors = np.linspace(1, 4, len(IDS))
    indices, repeats = epoch_order(IDS, seed=0, epoch=0, factors=factors)
    turned = epoch_order(IDS[::-1], seed=0, epoch=0, factors=factors[::-1])
    assert [IDS[i] for i in indices] == [IDS[::-1][i] for i in turned[0]]
    np.testing.assert_array_equal(repeats, turned[1])
