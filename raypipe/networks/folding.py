"""BatchNorm folded into the convolution before it: one pass over the features less at inference."""

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from raypipe.networks.backbones.base import FrozenBatchNorm2d


def fold_batchnorm(module: nn.Module) -> None:
    """Fold each frozen BatchNorm into the convolution that it directly follows in a Sequential, in place.

    The result is the same up to rounding; the module can't load checkpoints any more.
    """
    for child in list(module.modules()):
        if not isinstance(child, nn.Sequential):
            continue
        for index in range(len(child) - 1):
            conv, norm = child[index], child[index + 1]
            if isinstance(conv, nn.Conv2d) and isinstance(norm, FrozenBatchNorm2d):
                child[index] = fuse_conv_bn_eval(conv.eval(), norm)
                child[index + 1] = nn.Identity()
