"""A classifier's training step on a CPU, by torch's gradients of depthwise convolutions and by ours, in turns.

    python benchmarks/training_step.py [BACKBONE ...]

Forward and backward pass of random weights; the optimiser and the loading of crops are apart.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Annotated, Any

import torch
import typer
from measure import machine, table, time_interleaved

from raypipe.networks import build_classifier
from raypipe.networks.depthwise import QuickDepthwise
from raypipe.networks.precision import autocast

CPU = torch.device("cpu")
BACKBONES = ["mobilenet_v2", "timm/tf_efficientnet_lite2", "timm/mobilenetv3_large_100", "timm/convnext_atto"]


def make_step(network: Any, crops: torch.Tensor, gradients: Any) -> Callable[[], object]:
    """A forward and a backward pass."""

    def step() -> None:
        with autocast(CPU, "auto"), gradients():
            logits = network(crops)
        logits.float().sum().backward()

    return step


def main(
    backbones: Annotated[list[str] | None, typer.Argument(help="Backbones to time.")] = None,
    batch_size: int = 16,
    crop_size: int = 320,
    output_stride: int = 16,
    threads: int = 1,
    num_runs: int = 5,
) -> None:
    """Prints a table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    rows = []
    for name in backbones or BACKBONES:
        network = build_classifier(name, num_classes=20, output_stride=output_stride)
        network.to(memory_format=torch.channels_last).train()
        crops = torch.rand(batch_size, 3, crop_size, crop_size).contiguous(memory_format=torch.channels_last)
        steps = [make_step(network, crops, gradients) for gradients in (nullcontext, QuickDepthwise)]
        theirs, ours = time_interleaved(steps, num_runs=num_runs)
        rows.append((name, theirs, ours, f"{theirs.median / ours.median:.2f}"))
    print(machine())
    print(f"{batch_size} crops of {crop_size} pixels, output stride {output_stride}")
    print(table(("backbone", "torch's gradients", "ours", "ratio"), rows))


if __name__ == "__main__":
    typer.run(main)
