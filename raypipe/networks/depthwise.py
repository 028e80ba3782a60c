"""Depthwise convolutions on CPUs, where torch's own take most of a network's time.

    y_c = w_c * x_c        dL/dx_c = flipped w_c * dL/dy_c        dL/dw_c(i) = sum_p dL/dy_c(p) x_c(s p + d i - pad)

of stride s and dilation d. oneDNN is quick at the gradients of 3x3 without either; those of 5x5, of strides and of
dilations took most of an EfficientNet's training step. And it is slow where it pads by itself as widely as 5x5 with
dilation 4 wants (benchmarks/speed.md).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

WIDE = 8
"""Pixels of padding from which on oneDNN is slow at padding by itself: 5x5 with dilation 4."""

CACHED = 2**21
"""Numbers of the maps that are summed at a time: they and their products stay in a core's cache."""


def quick_depthwise(device: torch.device) -> AbstractContextManager[object]:
    """Return `QuickDepthwise` for a CPU; for an accelerator, whose kernels wait for Python, a context of nothing."""
    return QuickDepthwise() if device.type == "cpu" else nullcontext()


class QuickDepthwise(TorchFunctionMode):
    """While it is entered, depthwise convolutions on CPUs go the quick way where oneDNN is slow.

    Results and gradients are the same but for rounding. Other convolutions and other devices stay torch's.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls `func`, or what takes its place."""
        return (_conv2d if func is F.conv2d else func)(*args, **(kwargs or {}))


class _Geometry(NamedTuple):
    """Of a convolution, along height and width."""

    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    reach: tuple[int, int]
    """Pixels from the first tap to the last one."""

    @classmethod
    def of(cls, weight: Tensor, stride: Any, padding: Any, dilation: Any) -> "_Geometry":
        rows, columns = _pair(dilation)
        reach = rows * (weight.shape[2] - 1), columns * (weight.shape[3] - 1)
        return cls(_pair(stride), _pair(padding), (rows, columns), reach)


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])


def _conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Takes the arguments of `torch.nn.functional.conv2d`."""
    depthwise = 1 < groups == x.shape[1] == weight.shape[0] and not isinstance(padding, str)
    if depthwise and x.device.type == "cpu":
        geometry = _Geometry.of(weight, stride, padding, dilation)
        if torch.is_grad_enabled() and _has_slow_gradients(weight, geometry):
            if torch.is_autocast_enabled("cpu"):
                x, weight = (each.to(torch.get_autocast_dtype("cpu")) for each in (x, weight))
            y: Tensor = _Depthwise.apply(x, weight, geometry)
            return y if bias is None else y + bias.to(y.dtype)[:, None, None]
        if max(geometry.padding) >= WIDE:
            x, padding = _padded(x, geometry.padding), 0
    return F.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _has_slow_gradients(weight: Tensor, geometry: _Geometry) -> bool:
    taps = weight.shape[2:]
    quick = max(taps) <= 3 and geometry.stride == geometry.dilation == (1, 1)
    fits = all(pad <= reach for pad, reach in zip(geometry.padding, geometry.reach, strict=True))
    return not quick and fits and all(number % 2 for number in taps)


def _padded(x: Tensor, padding: tuple[int, int]) -> Tensor:
    top, left = padding
    return F.pad(x, (left, left, top, top)) if top or left else x  # padding by nothing would copy


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Float[Tensor, "B C H W"], weight: Float[Tensor, "C 1 k l"], geometry: _Geometry
    ) -> Float[Tensor, "B C h w"]:
        padded = _padded(x, geometry.padding)
        ctx.save_for_backward(padded, weight)
        ctx.geometry, ctx.size = geometry, x.shape[2:]
        return F.conv2d(padded, weight, None, geometry.stride, 0, geometry.dilation, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        padded, weight = ctx.saved_tensors
        gradient = gradients[0].contiguous(memory_format=torch.channels_last)
        wants_x, wants_weight = ctx.needs_input_grad[:2]
        by_x = _by_input(gradient, weight, ctx.geometry, size=ctx.size) if wants_x else None
        by_weight = _by_weight(gradient, padded, weight, ctx.geometry) if wants_weight else None
        return by_x, by_weight, None


def _by_input(gradient: Tensor, weight: Tensor, geometry: _Geometry, *, size: tuple[int, int]) -> Tensor:
    (top, left), (height, width) = geometry.padding, geometry.reach
    if geometry.stride != (1, 1):
        # What the stride left out has no gradient.
        rows, columns = size[0] + 2 * top - height, size[1] + 2 * left - width
        every = gradient.new_zeros(*gradient.shape[:2], rows, columns).contiguous(memory_format=torch.channels_last)
        every[:, :, :: geometry.stride[0], :: geometry.stride[1]] = gradient
        gradient = every
    gradient = _padded(gradient, (height - top, width - left))
    return F.conv2d(gradient, weight.flip(2, 3), None, 1, 0, geometry.dilation, gradient.shape[1])


def _by_weight(gradient: Tensor, padded: Tensor, weight: Tensor, geometry: _Geometry) -> Tensor:
    rows, columns = (
        [slice(d * tap, d * tap + stride * (side - 1) + 1, stride) for tap in range(taps)]
        for d, stride, side, taps in zip(
            geometry.dilation, geometry.stride, gradient.shape[2:], weight.shape[2:], strict=True
        )
    )
    images = max(1, CACHED // padded[0].numel())
    total = weight.new_zeros(weight.shape, dtype=torch.promote_types(weight.dtype, torch.float32))
    for part, by_y in zip(torch.split(padded, images), torch.split(gradient, images), strict=True):
        for i, row in enumerate(rows):
            for j, column in enumerate(columns):
                total[:, 0, i, j] += (part[:, :, row, column] * by_y).sum((0, 2, 3))
    return total.to(weight.dtype)
