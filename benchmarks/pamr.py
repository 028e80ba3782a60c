"""PAMR: seconds and memory of one image and 4 maps, and of a batch.

    OMP_NUM_THREADS=2 python benchmarks/pamr.py [--num-runs 5] [--device cpu]

Naively, the neighbours of 4 maps of 448 x 448 pixels would take 147 MiB, those of 21 maps 771 MiB.
"""

from typing import Annotated

import torch
import typer
from measure import machine, table, time_interleaved
from memory import added, run_alone
from torch import Tensor

from raypipe.ops.pamr import pamr

CASES = ((1, 1, 448), (1, 4, 448), (1, 4, 1024), (4, 1, 448))
"""Images, maps, side in pixels."""


def make_inputs(num_images: int, num_maps: int, side: int, device: str) -> tuple[Tensor, Tensor]:
    """Image and maps at stride 8."""
    rng = torch.Generator().manual_seed(side)
    image = torch.rand(num_images, 3, side, side, generator=rng)
    return image.to(device), torch.rand(num_images, num_maps, side // 8, side // 8, generator=rng).to(device)


def megabytes_added(case: tuple[int, int, int], device: str) -> float:
    """Memory that PAMR adds at its peak, its result included, in MiB."""
    image, mask = make_inputs(*case, device)
    pamr(image[..., :64, :64], mask[..., :8, :8])  # loads what is loaded once
    if device == "cpu":
        return added(lambda: pamr(image, mask))
    torch.cuda.reset_peak_memory_stats()
    bytes_before = torch.cuda.memory_allocated()
    pamr(image, mask)
    return (torch.cuda.max_memory_allocated() - bytes_before) / 2**20


def main(
    num_runs: Annotated[int, typer.Option(min=1, help="timed calls of each")] = 5,
    device: Annotated[str, typer.Option(help="cpu or cuda")] = "cpu",
) -> None:
    """Prints the table."""
    print(machine(), end="\n\n")
    inputs = [make_inputs(*case, device) for case in CASES]

    def run(image: Tensor, mask: Tensor) -> None:
        pamr(image, mask)
        if device != "cpu":
            torch.cuda.synchronize()

    timings = time_interleaved([lambda pair=pair: run(*pair) for pair in inputs], num_runs=num_runs)  # type: ignore[misc]
    rows = [
        (*case[:2], f"{case[2]}x{case[2]}", timing, f"{run_alone(megabytes_added, case, device):.0f}")
        for case, timing in zip(CASES, timings, strict=True)
    ]
    print(table(("images", "maps", "pixels", "time", "memory added, MiB"), rows))


if __name__ == "__main__":
    typer.run(main)
