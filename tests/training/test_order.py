import numpy as np
import pyarrow as pa
import pytest

from raypipe.data.names import hash_names
from raypipe.training.order import epoch_order, num_steps_per_epoch, repeat_factors, worker_draws

IDS = [f"image-{index}" for index in range(23)]


def test_order_is_a_permutation_that_changes_with_seed_and_epoch() -> None:
    orders = [tuple(epoch_order(pa.array(IDS), seed=seed, epoch=epoch)[0]) for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len(set(orders)) == 4


def test_order_depends_on_ids_not_on_their_place_in_the_manifest() -> None:
    order = [IDS[index] for index in epoch_order(pa.array(IDS), seed=0, epoch=0)[0]]
    reversed_ids = IDS[::-1]
    assert order == [reversed_ids[index] for index in epoch_order(pa.array(reversed_ids), seed=0, epoch=0)[0]]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_workers_parts_make_the_same_batches(world_size: int) -> None:
    steps = num_steps_per_epoch(len(IDS), 8)
    parts = [
        worker_draws(pa.array(IDS), seed=0, epoch=0, batch_size=8, rank=rank, world_size=world_size)[0].reshape(
            steps, -1
        )
        for rank in range(world_size)
    ]
    batches = np.concatenate(parts, axis=1)
    whole = worker_draws(pa.array(IDS), seed=0, epoch=0, batch_size=8, rank=0, world_size=1)[0].reshape(steps, 8)
    np.testing.assert_array_equal(np.sort(batches, axis=1), np.sort(whole, axis=1))
    assert set(batches.reshape(-1)) == set(range(23))  # nobody is left out


def test_fewer_images_than_a_batch() -> None:
    assert len(worker_draws(pa.array(IDS[:3]), seed=0, epoch=0, batch_size=8, rank=0, world_size=1)[0]) == 8


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
        indices, repeats = epoch_order(pa.array(IDS), seed=seed, epoch=epoch, factors=factors)
        assert len(indices) == len(IDS)
        assert len(set(zip(indices.tolist(), repeats.tolist(), strict=True))) == len(IDS)  # never the same crop twice
        drawn = np.bincount(indices, minlength=len(IDS))
        expected = len(IDS) * factors / factors.sum()
        assert (drawn >= np.floor(expected)).all()
        assert (drawn <= np.ceil(expected)).all()
        counts += drawn
    np.testing.assert_allclose(counts / 40, len(IDS) * factors / factors.sum(), atol=0.3)


def test_equal_factors_draw_each_image_once() -> None:
    indices, repeats = epoch_order(pa.array(IDS), seed=0, epoch=0, factors=np.full(len(IDS), 2.0))
    assert sorted(indices) == list(range(23))
    assert not repeats.any()


def test_convention_draws_depend_on_ids_not_on_their_place() -> None:
    factors = np.linspace(1, 4, len(IDS))
    indices, repeats = epoch_order(pa.array(IDS), seed=0, epoch=0, factors=factors)
    turned = epoch_order(pa.array(IDS[::-1]), seed=0, epoch=0, factors=factors[::-1])
    assert [IDS[i] for i in indices] == [IDS[::-1][i] for i in turned[0]]
    np.testing.assert_array_equal(repeats, turned[1])


def test_convention_the_order_of_a_seed_stays() -> None:
    """A training that goes on after an update reads what it would have read."""
    images = pa.chunked_array([IDS[:4], IDS[4:]])
    plain, _ = epoch_order(images, seed=3, epoch=2)
    indices, repeats = epoch_order(images, seed=3, epoch=2, factors=np.linspace(1, 4, len(IDS)))
    assert plain.tolist() == [1, 12, 11, 9, 2, 4, 3, 0, 14, 19, 20, 13, 5, 7, 18, 17, 6, 22, 21, 10, 8, 15, 16]
    assert indices.tolist() == [9, 18, 8, 14, 6, 5, 15, 17, 20, 22, 13, 7, 22, 2, 19, 11, 16, 3, 21, 16, 19, 10, 12]
    assert np.flatnonzero(repeats).tolist() == [12, 16, 20]


def test_hashes_of_many_names_are_those_of_each() -> None:
    names = pa.array([f"{index}" for index in range(70_000)])
    hashes = hash_names(names, "0/1")
    assert len(np.unique(hashes)) == len(names)
    for index in (0, 65_535, 65_536, 69_999):
        assert hash_names(names.slice(index, 1), "0/1")[0] == hashes[index]
