"""What several tests of the mathematics share: the walk's matrix written out densely, and inputs of known seed."""

from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

DenseTransition = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small tensors: threads would only wait for each other."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def dense_weights() -> DenseTransition:
    """(affinity, beta, radius) -> N x N matrix W^beta with unit diagonal, written with loops over cells."""

    def build(affinity: Tensor, beta: float, radius: int = 5) -> np.ndarray:
        _, height, width = affinity.shape
        offsets = [
            (dy, dx)
            for dy in range(radius)
            for dx in range(-radius + 1, radius)
            if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius
        ]
        values = affinity.double().numpy()
        weights = np.eye(height * width)
        for k, (dy, dx) in enumerate(offsets):
            for y in range(height - dy):
                for x in range(max(0, -dx), width - max(0, dx)):
                    i, j, value = y * width + x, (y + dy) * width + x + dx, values[k, y, x]
                    weights[i, j] = weights[j, i] = value**beta if value > 0 else 0
        return weights

    return build


@pytest.fixture(scope="session")
def dense_transition(dense_weights: DenseTransition) -> DenseTransition:
    """(affinity, beta, radius) -> the row-stochastic N x N matrix T."""

    def build(affinity: Tensor, beta: float, radius: int = 5) -> np.ndarray:
        weights = dense_weights(affinity, beta, radius)
        return weights / weights.sum(axis=1, keepdims=True)

    return build
