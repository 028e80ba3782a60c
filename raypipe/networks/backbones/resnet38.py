"""ResNet38 as AffinityNet's authors use it: Wu et al., "Wider or Deeper" (2016), model A1, at output stride 8.

A block is BN-ReLU-3x3-BN-ReLU-3x3 plus a skip; a bottleneck is 1x1-3x3-1x1, with BN-ReLU before each convolution. Where
the shape changes, the skip is a 1x1 of the BN-ReLU'd input. Stride 8 is reached at b4; b5 is dilated by 2, b6 and b7 by
4. As in psa, conv1a and b2 are frozen and so is every BatchNorm. Attribute names are those of psa's checkpoints.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone, FrozenBatchNorm2d, freeze
from raypipe.networks.preprocessing import IMAGENET

STAGES = (
    ("b2", 3, 64, 128, 128, 1),
    ("b3", 3, 128, 256, 256, 1),
    ("b4", 6, 256, 512, 512, 1),
    ("b5", 3, 512, 512, 1024, 2),
)
"""Name, number of blocks, channels in, between and out, and dilation; those without dilation begin with stride 2."""


class ResNet38(Backbone):
    """conv1a 64 · b2 ×3 128 · b3 ×3 256 · b4 ×6 512 · b5 ×3 1024 · b6 2048 · b7 4096 (AffinityNet §4)."""

    affinity_depths = ("conv4", "conv5", "conv6")
    preprocessing = IMAGENET
    dropout = 0.5
    normalize_depths = False

    def __init__(self, name: str = "resnet38", *, output_stride: int = 8) -> None:
        super().__init__(name=name, output_stride=output_stride, channels={"conv4": 512, "conv5": 1024, "conv6": 4096})
        self.conv1a = nn.Conv2d(3, 64, 3, padding=1, bias=False)
        for stage, depth, ins, mid, outs, dilation in STAGES:
            self.add_module(stage, Block(ins, mid, outs, stride=2 if dilation == 1 else 1, dilation=dilation))
            for number in range(1, depth):
                block = Block(outs, mid, outs, first_dilation=dilation, dilation=dilation)
                self.add_module(f"{stage}_{number}", block)
        self.b6 = Bottleneck(1024, 2048, dilation=4, dropout=0.3)
        self.b7 = Bottleneck(2048, 4096, dilation=4, dropout=0.5)
        self.bn7 = FrozenBatchNorm2d(4096)
        freeze(self.conv1a, *(block for name, block in self.named_children() if name.startswith("b2")))

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return conv4 and conv5 (the BN-ReLU'd inputs of b5 and b6) and conv6 (the BN-ReLU'd output of b7)."""
        x = self.conv1a(x)
        maps = {}
        for name, block in self.named_children():
            if isinstance(block, Block | Bottleneck):
                x, activated = block(x)
                if name in ("b5", "b6"):
                    maps["conv4" if name == "b5" else "conv5"] = activated
        return maps | {"conv6": F.relu(self.bn7(x))}


class Block(nn.Module):
    """y = skip(x) + 3x3(BNReLU(3x3(BNReLU(x)))); returns y and BNReLU(x)."""

    def __init__(
        self,
        in_channels: int,
        mid_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        first_dilation: int = 1,
        dilation: int = 1,
    ) -> None:
        super().__init__()
        self.bn_branch2a = FrozenBatchNorm2d(in_channels)
        self.conv_branch2a = nn.Conv2d(
            in_channels, mid_channels, 3, stride, padding=first_dilation, dilation=first_dilation, bias=False
        )
        self.bn_branch2b1 = FrozenBatchNorm2d(mid_channels)
        self.conv_branch2b1 = nn.Conv2d(mid_channels, out_channels, 3, padding=dilation, dilation=dilation, bias=False)
        self.conv_branch1 = None
        if in_channels != out_channels or stride != 1:
            self.conv_branch1 = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its BN-ReLU'd input."""
        activated = F.relu(self.bn_branch2a(x))
        skip = x if self.conv_branch1 is None else self.conv_branch1(activated)
        branch = self.conv_branch2a(activated)
        branch = self.conv_branch2b1(F.relu(self.bn_branch2b1(branch)))
        return skip + branch, activated


class Bottleneck(nn.Module):
    """1x1 to out/4, dilated 3x3 to out/2, 1x1 to out; Dropout2d before the last two; returns y and BNReLU(x)."""

    def __init__(self, in_channels: int, out_channels: int, *, dilation: int, dropout: float) -> None:
        super().__init__()
        self.bn_branch2a = FrozenBatchNorm2d(in_channels)
        self.conv_branch2a = nn.Conv2d(in_channels, out_channels // 4, 1, bias=False)
        self.bn_branch2b1 = FrozenBatchNorm2d(out_channels // 4)
        self.dropout_2b1 = nn.Dropout2d(dropout)
        self.conv_branch2b1 = nn.Conv2d(
            out_channels // 4, out_channels // 2, 3, padding=dilation, dilation=dilation, bias=False
        )
        self.bn_branch2b2 = FrozenBatchNorm2d(out_channels // 2)
        self.dropout_2b2 = nn.Dropout2d(dropout)
        self.conv_branch2b2 = nn.Conv2d(out_channels // 2, out_channels, 1, bias=False)
        self.conv_branch1 = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's output and its BN-ReLU'd input."""
        activated = F.relu(self.bn_branch2a(x))
        branch = self.conv_branch2a(activated)
        branch = self.dropout_2b1(F.relu(self.bn_branch2b1(branch)))
        branch = self.conv_branch2b1(branch)
        branch = self.dropout_2b2(F.relu(self.bn_branch2b2(branch)))
        branch = self.conv_branch2b2(branch)
        return self.conv_branch1(activated) + branch, activated
