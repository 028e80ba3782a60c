"""Measures which pixel a cell of a map looks at: the middle of the gradient of its score.

Conventions: a cell's centre is in pixels, whose own centres are whole numbers; cell i of the grid of stride s stands
for the pixels [s i, s (i + 1)), whose centre is s i + (s - 1) / 2.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

STRIP = (384, 32)
"""Height and width in pixels of the image that is measured on, along its height."""


def measure_centres(network: nn.Module, read: Callable[[Tensor], Sequence[Tensor]]) -> tuple[float, ...]:
    """Return the pixel that cell 0 of each map looks at, to half a pixel.

    The network is spoilt: its kernels become the same at every place, so that the gradient spreads evenly around its
    middle, and maxima become means, as of equal values they would look at the first one alone.

    Args:
        network: in eval mode, with any weights.
        read: returns the network's maps (1, C, h, w) of an image.
    """
    rng = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            taps = module.weight[0, 0].numel()
            drawn = torch.randn(module.weight.shape[:2], generator=rng) / (taps * module.weight.shape[1] ** 0.5)
            module.weight.data.copy_(drawn[:, :, None, None].expand_as(module.weight))
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm) and module.weight is not None:
            nn.init.ones_(module.weight)  # timm starts some at 0, where a branch would show nothing
        elif type(module) is nn.MaxPool2d:
            module.forward = partial(_average, module)  # type: ignore[method-assign]
    x = torch.ones(1, 3, *STRIP, requires_grad=True)
    return tuple(_centre(features, x) for features in read(x))


def _centre(features: Tensor, x: Tensor) -> float:
    rows = features.shape[-2]
    stride, row = STRIP[0] // rows, rows // 2
    (gradient,) = torch.autograd.grad(features[0, :, row].square().sum(), x, retain_graph=True)
    influence = gradient[0].double().abs().sum(dim=(0, 2))
    influence = influence - influence.min()  # what sees all of the image, such as squeeze and excite
    # The median: unlike the mean, it hardly depends on where the strip ends.
    below = influence.cumsum(dim=0) / influence.sum()
    middle = int((below < 0.5).sum())
    share = (below[middle] - 0.5) / (influence[middle] / influence.sum())
    centre = middle + 0.5 - share - stride * row
    return round(2 * centre.item()) / 2


def _average(pool: nn.MaxPool2d, x: Tensor) -> Tensor:
    size, stride, padding = pool.kernel_size, pool.stride, pool.padding
    return F.avg_pool2d(x, size, stride, padding, ceil_mode=pool.ceil_mode, count_include_pad=False)
