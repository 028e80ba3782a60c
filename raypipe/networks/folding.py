"""Folds frozen BatchNorms away, which saves inference most of its passes over the features."""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raypipe.networks.backbones.base import FrozenBatchNorm2d


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

    A BatchNorm follows a convolution if it is registered right behind it: networks here are written in the order in
    which they compute. The outputs stay the same up to rounding. Afterwards the network can't load checkpoints.
    """
    for module in list(network.modules()):
        children = list(module.named_children())
        for (name, conv), (norm_name, norm) in pairwise(children):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                setattr(module, name, fuse_conv_bn_eval(conv.eval(), norm))
                setattr(module, norm_name, nn.Identity())
    for module in list(network.modules()):
        for name, norm in module.named_children():
            if isinstance(norm, FrozenBatchNorm2d):
                setattr(module, name, Affine(norm))
