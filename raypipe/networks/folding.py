"""Folds BatchNorm into the convolution before it, which saves inference one pass over the features."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raypipe.networks.backbones.base import FrozenBatchNorm2d


def fold_batchnorm(module: nn.Module) -> None:
    """Fold each frozen BatchNorm into the convolution that it directly follows in a Sequential, in place.

    The outputs stay the same up to rounding. Afterwards the module can't load checkpoints.
    """
    for child in list(module.modules()):
        if not isinstance(child, nn.Sequential):
            continue
        for index in range(len(child) - 1):
            conv, norm = child[index], child[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                child[index] = fuse_conv_bn_eval(conv.eval(), norm)
                child[index + 1] = nn.Identity()
