"""Folds frozen BatchNorms away, which saves inference most of its passes over the features."""

from collections import Counter
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from raypipe.networks.backbones.base import FrozenBatchNorm2d, convolves_plainly


class Affine(nn.Module):
    """x -> scale · x + shift, with a number of each for every channel: a frozen BatchNorm, worked out once."""

    scale: Tensor
    shift: Tensor

    def __init__(self, norm: FrozenBatchNorm2d) -> None:
        super().__init__()
        scale, shift = norm.scale_and_shift()
        self.register_buffer("scale", scale[:, None, None])
        self.register_buffer("shift", shift[:, None, None])

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Apply it in the input's precision."""
        return torch.addcmul(self.shift.to(x.dtype), x, self.scale.to(x.dtype))


def fold_batchnorm(network: nn.Module) -> None:
    """Fold every frozen BatchNorm into the convolution that it follows, and work the others out, in place.

    Which follows which shows in a pass of an image of 32 x 32 pixels. The outputs stay the same up to rounding.
    Afterwards the network can't load checkpoints.
    """
    follows = _find_followers(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, FrozenBatchNorm2d) and child in follows:
                conv, (scale, shift) = follows[child], child.scale_and_shift()
                bias = shift if conv.bias is None else shift + scale * conv.bias
                conv.weight = nn.Parameter((conv.weight * scale[:, None, None, None]).detach())
                conv.bias = nn.Parameter(bias.detach())
                setattr(module, name, child.act)
            elif isinstance(child, FrozenBatchNorm2d):
                setattr(module, name, nn.Sequential(Affine(child), child.act))


def _find_followers(network: nn.Module) -> dict[nn.Module, nn.Conv2d]:
    """Return the convolution whose output each frozen BatchNorm takes, and nothing else does."""
    uses = _Uses()
    made: list[tuple[nn.Conv2d, Tensor]] = []
    follows: dict[nn.Module, tuple[nn.Conv2d, Tensor]] = {}

    def after_conv(conv: nn.Module, _: object, output: Tensor) -> None:
        assert isinstance(conv, nn.Conv2d)
        made.append((conv, output))
        uses.count[id(output)] = 0  # it may have been that of a tensor that is gone

    def before_norm(norm: nn.Module, given: tuple[Tensor, ...]) -> None:
        for conv, output in made:
            if output is given[0]:
                follows[norm] = conv, output

    hooks = [
        module.register_forward_pre_hook(before_norm)
        if isinstance(module, FrozenBatchNorm2d)
        else module.register_forward_hook(after_conv)
        for module in network.modules()
        if isinstance(module, FrozenBatchNorm2d) or convolves_plainly(module)
    ]
    device = next(network.parameters()).device
    with torch.inference_mode(), uses:
        network(torch.zeros(1, 3, 32, 32, device=device))
    for hook in hooks:
        hook.remove()
    return {norm: conv for norm, (conv, output) in follows.items() if uses.count[id(output)] == 1}


class _Uses(TorchFunctionMode):
    """Counts the functions that take each tensor, by its identity."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[int] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count the tensors of which a function makes others; a look at a shape is no use."""
        result = func(*args, **(kwargs or {}))
        if any(isinstance(each, Tensor) for each in tree_leaves(result)):
            self.count.update(id(each) for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor))
        return result
