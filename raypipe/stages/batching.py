"""Images of equal size through a network together: throughput mode, which keeps an accelerator busy."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from raypipe.faults import ROW_ERRORS
from raypipe.progress import tick
from raypipe.stages.base import Kind, Row, Stage

_NO_WORKSPACE = ("unable to find an engine", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
"""What cuDNN and cuBLAS say of it, in RuntimeErrors of other kinds."""


class HasPixels(Protocol):
    """An image that is ready to be computed."""

    @property
    def pixels(self) -> NDArray[np.uint8] | None:
        """(H, W, 3); None where nothing needs them."""


Prepared = TypeVar("Prepared", bound=HasPixels)
Computed = TypeVar("Computed")


@dataclass(kw_only=True)
class JointStage(Stage, Generic[Prepared]):
    """A stage whose rows may share passes of its network."""

    pixels_per_pass: int | None = None
    """None takes every row alone, so that its result depends on nothing else, bit for bit. A number lets images share
    passes of that many pixels, mirror images not counted; results may then differ in rounding with the composition of
    the pass."""

    @property
    def kind(self) -> Kind:
        """Runs a network."""
        return "device"

    @abstractmethod
    def prepare(self, row: Row) -> Prepared:
        """Returns what `compute` needs of a row.

        Raises:
            ValueError: (or another of ROW_ERRORS) if this row can't be processed.
        """

    @abstractmethod
    def compute(self, prepared: Sequence[Prepared]) -> list[Row]:
        """Returns the columns `writes` of each prepared row."""

    def process(self, row: Row) -> Row:
        """Computes one row alone.

        Raises:
            ValueError: it doesn't fit into the device's memory; or what `prepare` and `compute` raise.
        """
        return self.alone(row, self.compute)

    def alone(self, row: Row, compute: Callable[[Sequence[Prepared]], list[Computed]]) -> Computed:
        """What `compute` gives for one row alone; errors as of `process`."""
        prepared = self.prepare(row)
        try:
            return within_memory(compute, [prepared])[0]
        except torch.OutOfMemoryError as error:
            height, width = ("?", "?") if prepared.pixels is None else prepared.pixels.shape[:2]
            raise ValueError(
                f"an image of {height} x {width} pixels (height x width) doesn't fit into the device's memory, alone "
                "and with all that was kept there freed: lower images.max_side, or set cluster.gpus_per_actor=1"
            ) from error

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Computes all rows, together where they may be; rows in error don't hold up the others.

        Where one of them fails only when computed, or together they don't fit into memory, each is computed alone.
        """
        if self.pixels_per_pass is None:
            return super().process_all(rows)
        done = list(rows)
        prepared: dict[int, Prepared] = {}
        for index, row in enumerate(rows):
            if row.get("error_stage") is not None:
                continue
            try:
                prepared[index] = self.prepare(row)
            except ROW_ERRORS as error:
                done[index] = self.failed(row, error)
        try:
            computed = within_memory(self.compute, list(prepared.values()))
        except (*ROW_ERRORS, torch.OutOfMemoryError):
            for index in prepared:
                done[index] = self._guarded(rows[index])
        else:
            for index, columns in zip(prepared, computed, strict=True):
                done[index] = rows[index] | columns
        return done


def within_memory(
    compute: Callable[[Sequence[Prepared]], list[Computed]], prepared: Sequence[Prepared]
) -> list[Computed]:
    """What `compute` gives, in two halves and again where the device has too little memory for all at once.

    Memory that torch keeps for later is freed before each further try. One row is tried twice.

    Raises:
        torch.OutOfMemoryError: a row doesn't fit alone.
    """
    with suppress(torch.OutOfMemoryError), _memory_errors():  # which hold what the failed try had computed
        return compute(prepared)
    torch.cuda.empty_cache()
    if len(prepared) <= 1:
        with _memory_errors():
            return compute(prepared)
    half = len(prepared) // 2
    return within_memory(compute, prepared[:half]) + within_memory(compute, prepared[half:])


@contextmanager
def _memory_errors() -> Iterator[None]:
    """Makes OutOfMemoryErrors of the errors that libraries raise where their workspace has no room."""
    try:
        yield
    except RuntimeError as error:
        if any(text in str(error) for text in _NO_WORKSPACE):
            raise torch.OutOfMemoryError(str(error)) from error
        raise


def in_passes(
    network: Callable[[Tensor], Tensor], inputs: Sequence[Tensor], *, pixels_per_pass: int | None
) -> list[Tensor]:
    """The network's output of each input, those of equal size in common passes.

    Inputs are never padded to one another's size: that would change the features inside the image.

    Args:
        network: (B, 3, H, W) to (B, ...), row by row.
        inputs: (1, 3, H, W) each, of any sizes.
        pixels_per_pass: B · H · W at most, unless B = 1; None passes each input alone.

    Returns:
        (1, ...) of each input, in their order.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for index, x in enumerate(inputs):
        members.setdefault((x.shape[-2], x.shape[-1]), []).append(index)
    outputs: dict[int, Tensor] = {}
    for (height, width), indices in members.items():
        number = max(1, (pixels_per_pass or 0) // (height * width))
        for start in range(0, len(indices), number):
            together = indices[start : start + number]
            tick()
            passed = network(torch.cat([inputs[index] for index in together]))
            outputs.update(zip(together, torch.split(passed, 1), strict=True))
    return [outputs[index] for index in range(len(inputs))]
