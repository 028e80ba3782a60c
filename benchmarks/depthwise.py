"""A classifier on a CPU, by torch's depthwise convolutions and by ours, in turns: a training step, and an image's maps.

    python benchmarks/depthwise.py [BACKBONE ...]

Random weights. A step is a forward and a backward pass; the optimiser and the loading of crops are apart. Maps are
those of one pass at stride 8.
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
WAYS = (nullcontext, QuickDepthwise)
IMAGE = (376, 504)
BACKBONES = ["mobilenet_v2", "timm/tf_efficientnet_lite2", "timm/mobilenetv3_large_100", "timm/convnext_atto"]


def make_step(network: Any, crops: torch.Tensor, way: Any) -> Callable[[], object]:
    """A forward and a backward pass."""

    def step() -> None:
        with autocast(CPU, "auto"), way():
            logits = network(crops)
        logits.float().sum().backward()

    return step


def make_maps(network: Any, image: torch.Tensor, way: Any) -> Callable[[], object]:
    """One pass over an image."""

    @torch.inference_mode()
    def maps() -> None:
        with autocast(CPU, "auto"), way():
            network.cam(image)

    return maps


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
        steps = [make_step(network, crops, way) for way in WAYS]
        network = build_classifier(name, num_classes=20).to(memory_format=torch.channels_last).eval()
        image = torch.rand(1, 3, *IMAGE).contiguous(memory_format=torch.channels_last)
        passes = [make_maps(network, image, way) for way in WAYS]
        for what, calls in (("step", steps), ("maps", passes)):
            theirs, ours = time_interleaved(calls, num_runs=num_runs)
            rows.append((name, what, theirs, ours, f"{theirs.median / ours.median:.2f}"))
    print(machine())
    print(f"{batch_size} crops of {crop_size} pixels, output stride {output_stride}; an image of {IMAGE[0]}x{IMAGE[1]}")
    print(table(("backbone", "what", "torch's", "ours", "ratio"), rows))


if __name__ == "__main__":
    typer.run(main)
