"""A network of 0.3 M parameters for the demo and for tests, which learns from scratch in minutes on a CPU.

It is ResNet38 in miniature: pre-activation blocks with growing dilations. Frozen BatchNorm can't train random weights,
and normalising each image would remove how much of a texture the image holds, from which a classifier without
pretraining learns first. So the weights are standardised instead of the activations (Qiao et al., 2019; with the gain
of Brock et al., 2021). A cell's features depend only on the pixels around it, never on the rest of the image or batch.

Conventions: its stride-2 layers are 4x4 convolutions that are padded by one on both sides and read the pixels
2i-1..2i+2, so the receptive field of cell i is centred at 8i + 3.5, exactly the centre of the cell's own pixels.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone
from raypipe.networks.preprocessing import IMAGENET

RELU_GAIN = math.sqrt(2 / (1 - 1 / math.pi))
"""Gain that makes up for the variance that a ReLU takes from a standard normal variable."""


class Tiny(Backbone):
    """Stem 16 (stride 2) · 32 (stride 4) · 64 (stride 8) with dilations 1, 2, 4 · 1x1 to 128."""

    affinity_depths = ("stride4", "middle", "last")
    preprocessing = IMAGENET
    starts_from_scratch = True
    float32_weights = ("stem", "down4", "block4", "down8", "block8_1", "block8_2", "block8_3", "last")

    def __init__(self, name: str = "tiny", *, output_stride: int = 8) -> None:
        super().__init__(name=name, output_stride=output_stride, channels={"stride4": 32, "middle": 64, "last": 128})
        self.stem = HalvingConv2d(3, 16)
        self.down4 = HalvingConv2d(16, 32)
        self.block4 = Block(32, dilation=1)
        self.down8 = HalvingConv2d(32, 64)
        self.block8_1 = Block(64, dilation=1)
        self.block8_2 = Block(64, dilation=2)
        self.block8_3 = Block(64, dilation=4)
        self.last = StandardizedConv2d(64, 128, 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return the map at stride 4 (averaged to the grid), the one in the middle, and the last."""
        x = self.down4(F.relu(self.stem(x)))
        stride4 = F.relu(self.block4(x))
        x = self.block8_2(self.block8_1(self.down8(stride4)))
        middle = F.relu(x)
        last = F.relu(self.last(F.relu(self.block8_3(x))))
        # Pairs of stride-4 cells are centred at 8i + 3.5 too.
        pooled = F.avg_pool2d(stride4, kernel_size=2, ceil_mode=True, count_include_pad=False)
        return {"stride4": pooled, "middle": middle, "last": last}


class StandardizedConv2d(nn.Conv2d):
    """A convolution by g (w - mean w) / |w - mean w|: the weights of an output channel have mean 0 and norm g."""

    def reset_parameters(self) -> None:
        """Draw weights of a norm at which the steps of training are neither too large nor too small."""
        nn.init.kaiming_normal_(self.weight, nonlinearity="relu")
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Convolve with the standardised weight."""
        centred = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        squared_norm = centred.square().sum(dim=(1, 2, 3), keepdim=True)
        weight = centred * (RELU_GAIN * torch.rsqrt(squared_norm + 1e-6))
        return F.conv2d(x, weight, self.bias, self.stride, self.padding, self.dilation)


class HalvingConv2d(StandardizedConv2d):
    """A 4x4 stride-2 convolution of pixels 2i-1..2i+2, output size ceil(H / 2)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 4, stride=2)

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Pad and convolve."""
        height, width = x.shape[-2:]
        return super().forward(F.pad(x, (1, 1 + width % 2, 1, 1 + height % 2)))


class Block(nn.Module):
    """y = x + 1/2 3x3(relu(3x3(relu(x)))); the half bounds the growth of the variance with depth."""

    def __init__(self, channels: int, *, dilation: int) -> None:
        super().__init__()
        self.conv1 = StandardizedConv2d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = StandardizedConv2d(channels, channels, 3, padding=dilation, dilation=dilation)

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Return the block's output."""
        branch: Tensor = self.conv2(F.relu(self.conv1(F.relu(x))))
        return x + 0.5 * branch
