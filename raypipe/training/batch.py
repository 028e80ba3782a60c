"""Builds a worker's part of a batch from the rows that the stages made."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raypipe.ops.jitter import ColourChange, change_colours
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
    colours: tuple[ColourChange | None, ...] = ()
    """What is still to be changed of each crop's colours, which `to` does; empty where nothing is."""

    def to(self, device: torch.device) -> "Batch":
        """Returns the batch on a device, with the colours changed there. Nothing waits for the device."""
        crops = self.crops.to(device, non_blocking=True)
        if any(self.colours):
            pairs = zip(crops, self.colours, strict=True)
            crops = torch.stack([crop if change is None else change_colours(crop, change) for crop, change in pairs])
        targets = {name: target.to(device, non_blocking=True) for name, target in self.targets.items()}
        return Batch(crops, targets, self.valid.to(device, non_blocking=True))


def to_batch(
    rows: pa.Table, target_shapes: dict[str, tuple[int, ...]], *, crop_size: int, pinned: bool = False
) -> Batch:
    """Makes a batch of rows with `crop`, `target`, `colours` and `error_stage`.

    Crops that couldn't be loaded keep their place, so that every worker takes every step. They are marked invalid;
    their pixels are black and their targets 255.

    Args:
        rows: `target` holds the bytes of all targets of a crop, one after another.
        target_shapes: shapes of one crop's targets, in that order.
        crop_size: side of the crops in pixels.
        pinned: in memory that a card copies from by itself, while the host goes on.
    """
    sizes = {name: int(np.prod(shape)) for name, shape in target_shapes.items()}
    crops = torch.zeros(rows.num_rows, crop_size, crop_size, 3, dtype=torch.uint8, pin_memory=pinned)
    targets = {
        name: torch.full((rows.num_rows, size), IGNORE, dtype=torch.uint8, pin_memory=pinned)
        for name, size in sizes.items()
    }
    valid = torch.tensor([error is None for error in rows["error_stage"].to_pylist()], pin_memory=pinned)
    for row in valid.nonzero().flatten().tolist():
        crops.numpy()[row].reshape(-1)[:] = np.frombuffer(rows["crop"][row].as_buffer(), np.uint8)
        found = np.frombuffer(rows["target"][row].as_buffer(), np.uint8)
        parts = np.split(found, np.cumsum(list(sizes.values()))[:-1])
        for target, part in zip(targets.values(), parts, strict=True):
            target.numpy()[row] = part
    return Batch(
        crops.permute(0, 3, 1, 2),
        {name: target.reshape(-1, *target_shapes[name]) for name, target in targets.items()},
        valid,
        colours=tuple(colours and ColourChange(**colours) for colours in rows["colours"].to_pylist()),
    )
