from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from raypipe.ops import transition as module
from raypipe.ops.affinity import pair_offsets
from raypipe.ops.transition import block_transition, symmetric_transition

Build = Callable[[Tensor, int, int, int], tuple[module.Product, Tensor]]
BUILDS = [module._diagonal_transition, module._compressed_transition]
GRIDS = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 4), (6, 8), (6, 9), (9, 12)]


def written_out(product: module.Product, num_cells: int) -> np.ndarray:
    return product(torch.eye(num_cells, dtype=torch.float64)).numpy()


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize("radius", [1, 2, 5])
@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_equals_the_dense_matrix(
    build: Build, radius: int, height: int, width: int, generator: torch.Generator, dense_weights: Callable
) -> None:
    affinity = torch.rand(len(pair_offsets(radius)), height, width, generator=generator)
    weights = dense_weights(affinity, 3.0, radius)
    root = np.sqrt(weights.sum(axis=1))
    product, root_degree = build((affinity.double() ** 3.0).flatten(1), height, width, radius)
    np.testing.assert_allclose(root_degree, root, rtol=1e-13)
    np.testing.assert_allclose(written_out(product, height * width), 2 * weights / np.outer(root, root), rtol=1e-12)


@pytest.mark.parametrize("build", BUILDS)
def test_any_layout_of_the_maps(build: Build, generator: torch.Generator) -> None:
    product, _ = build(torch.rand(34, 30, generator=generator, dtype=torch.float64), 5, 6, 5)
    maps = torch.rand(30, 4, generator=generator, dtype=torch.float64).T
    torch.testing.assert_close(product(maps), product(maps.contiguous()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (5, 1), (3, 4)])
def test_strides_say_that_rows_come_first(shape: tuple[int, int]) -> None:
    """`contiguous` would leave those of a transposed row as they are, as if it had been columns."""
    maps = torch.rand(shape, dtype=torch.float64)
    copy = module._row_major(maps.T)
    assert copy.stride() == (shape[0], 1)
    assert torch.equal(copy, maps.T)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.nan, np.inf])
def test_an_affinity_out_of_range_makes_its_own_block_nan(value: float, generator: torch.Generator) -> None:
    good, bad = torch.rand(4, 2, 3, generator=generator), torch.rand(4, 2, 3, generator=generator)
    bad[0, 0, 2] = value  # which leaves the grid
    product, root = block_transition([good, bad], beta=8.0, radius=2)
    walked = product(torch.ones(1, 12, dtype=torch.float64))
    assert root.isnan().tolist() == walked[0].isnan().tolist() == 6 * [False] + 6 * [True]


def test_beta_zero_keeps_missing_edges_missing(dense_weights: Callable) -> None:
    affinity = torch.zeros(4, 2, 2)
    affinity[0, 0, 0] = 0.3
    product, _ = symmetric_transition(affinity, beta=0.0, radius=2)
    expected = np.diag([1.0, 1.0, 2.0, 2.0])
    expected[0, 1] = expected[1, 0] = 1.0
    np.testing.assert_allclose(written_out(product, 4), expected, rtol=1e-15)


def test_the_pattern_is_kept_for_grids_of_the_same_size() -> None:
    module._compressed_pattern.cache_clear()
    for _ in range(2):
        module._compressed_transition(torch.rand(34, 30, dtype=torch.float64), 5, 6, 5)
    assert module._compressed_pattern.cache_info().misses == 1


@pytest.mark.parametrize(("height", "width"), GRIDS)
def test_blocks_of_rows_change_nothing(
    height: int, width: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = torch.rand(34, height * width, generator=generator, dtype=torch.float64)
    maps = torch.rand(3, height * width, generator=generator, dtype=torch.float64)
    whole, _ = module._diagonal_transition(weights.clone(), height, width, 5)
    monkeypatch.setattr(module, "_BLOCK_BYTES", 4000)
    in_blocks, _ = module._diagonal_transition(weights.clone(), height, width, 5)
    assert torch.equal(in_blocks(maps), whole(maps))
