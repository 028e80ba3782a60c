"""Weights by the rule of the golden files, and checkpoints written from them."""

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


def fill(name: str, shape: list[int]) -> Tensor:
    """Return the tensor that the golden numbers were computed with: it depends on its name alone."""
    random = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF)
    if name.endswith("running_var"):
        values = random.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = random.normal(0, 0.1, shape)
    elif len(shape) >= 2:
        values = random.normal(0, np.sqrt(1 / np.prod(shape[1:])), shape)
    elif name.endswith("weight"):
        values = random.uniform(0.5, 1.5, shape)
    else:
        values = random.normal(0, 0.1, shape)
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


@pytest.fixture
def golden_checkpoint(golden: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Write a checkpoint with the names and shapes of one of psa's networks."""

    def write(network: str) -> Path:
        shapes: Mapping[str, list[int]] = json.loads((golden / f"{network}_keys.json").read_text())
        path = tmp_path / f"{network}.pth"
        torch.save({name: fill(name, shape) for name, shape in shapes.items()}, path)
        return path

    return write
