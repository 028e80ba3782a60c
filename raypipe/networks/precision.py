"""Chooses the numeric precision: bfloat16 where the hardware multiplies it natively."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import Tensor, nn

from raypipe.networks.depthwise import quick_depthwise


def use_bf16(device: torch.device, precision: Literal["auto", "fp32", "bf16"]) -> bool:
    """Return True if `precision` means bfloat16 on this device; `auto` asks the hardware.

    Cards before Ampere emulate bfloat16, more slowly than they compute in float32: `auto` is float32 there.
    """
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())


def autocast(device: torch.device, precision: Literal["auto", "fp32", "bf16"]) -> AbstractContextManager[object]:
    """Return a context that runs convolutions and matrix products in bfloat16 if `use_bf16`, and else does nothing."""
    if use_bf16(device, precision):
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def cast_weights(
    network: nn.Module, device: torch.device, precision: Literal["auto", "fp32", "bf16"], *, kept: Sequence[nn.Module]
) -> None:
    """Cast the weights that `autocast` would cast in every pass, once and in place; outputs stay the same, bit for bit.

    Args:
        network: in eval mode, on the device.
        device: where it computes.
        precision: of the network.
        kept: parts of it whose weights stay float32.
    """
    if not use_bf16(device, precision):
        return
    uncast = {module for part in kept for module in part.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module not in uncast:
            module.to(torch.bfloat16)


def autocasting(
    network: Callable[[Tensor], Tensor], device: torch.device, precision: Literal["auto", "fp32", "bf16"]
) -> Callable[[Tensor], Tensor]:
    """Return a function that runs the network as `autocast` says, and gives its output in float32."""

    def run(x: Tensor) -> Tensor:
        with autocast(device, precision), quick_depthwise(device):
            output = network(x)
        return output.float()

    return run
