"""PAMR: seconds and memory of one image and 4 maps, and of a batch.

    OMP_NUM_THREADS=2 python benchmarks/pamr.py [--num-runs 5] [--device cpu]

Naively, the neighbours of 4 maps of 448 x 448 pixels would take 147 MiB, those of 21 maps 771 MiB.
"""

import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated

import torch
import typer
from measure import machine, table, time_interleaved
from torch import Tensor

from raypipe.ops.pamr import pamr

CASES = ((1, 1, 448), (1, 4, 448), (1, 4, 1024), (4, 1, 448))
"""Images, maps, side in pixels."""


def make_inputs(num_images: int, num_maps: int, side: int, device: str) -> tuple[Tensor, Tensor]:
    """Image and maps at stride 8."""
    rng = torch.Generator().manual_seed(side)
    image = torch.rand(num_images, 3, side, side, generator=rng)
    return image.to(device), torch.rand(num_images, num_maps, side // 8, side // 8, generator=rng).to(device)


def _send_peak(case: tuple[int, int, int], device: str, connection: Connection) -> None:
    image, mask = make_inputs(*case, device)
    pamr(image[..., :64, :64], mask[..., :8, :8])  # loads what is loaded once
    if device == "cpu":
        before = _memory("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
        pamr(image, mask)
        connection.send((_memory("VmHWM") - before) / 1024)
        return
    torch.cuda.reset_peak_memory_stats()
    bytes_before = torch.cuda.memory_allocated()
    pamr(image, mask)
    connection.send((torch.cuda.max_memory_allocated() - bytes_before) / 2**20)


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name))


def megabytes_added(case: tuple[int, int, int], device: str) -> float:
    """Memory that PAMR adds at its peak, its result included, in a process of its own, MiB."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_send_peak, args=(case, device, theirs))
    process.start()
    megabytes: float = ours.recv()
    process.join()
    return megabytes


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
        (num_images, num_maps, f"{side}x{side}", timing, f"{megabytes_added((num_images, num_maps, side), device):.0f}")
        for (num_images, num_maps, side), timing in zip(CASES, timings, strict=True)
    ]
    print(table(("images", "maps", "pixels", "time", "memory added, MiB"), rows))


if __name__ == "__main__":
    typer.run(main)
