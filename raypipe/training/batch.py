"""Builds a worker's part of a batch from the rows that the stages made."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raypipe.schema import IGNORE


@dataclass(frozen=True)
class Batch:
    """Crops with their targets."""

    crops: Tensor
    """(B, 3, S, S) uint8, RGB."""
    targets: dict[str, Tensor]
    """(B, ...) uint8 targets by the task's names for them."""
    valid: Tensor
    """(B,) bool; False where the image couldn't be read."""

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device."""
        targets = {name: target.to(device, non_blocking=True) for name, target in self.targets.items()}
        return Batch(self.crops.to(device, non_blocking=True), targets, self.valid.to(device, non_blocking=True))


def to_batch(rows: pa.Table, target_shapes: dict[str, tuple[int, ...]], *, crop_size: int) -> Batch:
    """Makes a batch of rows with `crop`, `target` and `error_stage`.

    Crops that couldn't be loaded keep their place, so that every worker takes every step. They are marked invalid;
    their pixels are black and their targets 255.

    Args:
        rows: `target` holds the bytes of all targets of a crop, one after another.
        target_shapes: shapes of one crop's targets, in that order.
        crop_size: side of the crops in pixels.
    """
    sizes = [int(np.prod(shape)) for shape in target_shapes.values()]
    crops = np.zeros((rows.num_rows, crop_size, crop_size, 3), dtype=np.uint8)
    targets = np.full((rows.num_rows, sum(sizes)), IGNORE, dtype=np.uint8)
    valid = np.array([error is None for error in rows["error_stage"].to_pylist()], dtype=bool)
    for index in np.flatnonzero(valid):
        row = int(index)
        crops[row] = np.frombuffer(rows["crop"][row].as_buffer(), np.uint8).reshape(crops[row].shape)
        targets[row] = np.frombuffer(rows["target"][row].as_buffer(), np.uint8)
    parts = torch.split(torch.from_numpy(targets), sizes, dim=1)
    return Batch(
        torch.from_numpy(crops).permute(0, 3, 1, 2),
        {name: part.reshape(-1, *shape) for (name, shape), part in zip(target_shapes.items(), parts, strict=True)},
        torch.from_numpy(valid),
    )
