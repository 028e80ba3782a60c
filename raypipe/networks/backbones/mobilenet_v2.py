"""MobileNetV2 (Sandler et al., 2018), dilated to output stride 8 or 16, with centred cells.

Conventions: a stride-2 3x3 convolution reads the pixels 2i-1..2i+1 if it is padded on both sides (torchvision), or
2i..2i+2 if it is padded at the right and bottom (TensorFlow). The second is the first on an input that is shifted by
one pixel, so each layer may use either, whatever the weights were trained with: the features inside the image are those
of a shifted image. After n stride-2 layers that are padded on both sides, the receptive field of cell i is centred at
2^n i; if all of them are padded at the right and bottom, at 2^n i + 2^n - 1. This module pads all but the last one so:
the centre is then 2^n i + 2^(n-1) - 1, half a pixel from the centre of the cell's own pixels [2^n i, 2^n (i+1)).

As in ResNet38, the layers up to stride 2 are frozen, and so is every BatchNorm. Attribute names are torchvision's.
"""

from contextlib import nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones.base import Backbone, FrozenBatchNorm2d, dilate, freeze, halve
from raypipe.networks.preprocessing import IMAGENET

CHANNELS = {"features.3": 24, "features.6": 32, "features.13": 96, "features.17": 320, "features.18": 1280}
"""The last block of each width, and its channels; features.3 is at stride 4, features.6 at stride 8."""

NUM_EXACT_BLOCKS = 4
"""Blocks that always infer in float32, even under autocast. features.1 adds up 32 channels that nearly cancel: in
bfloat16 the CAMs are 9 % off (relative norm), with these blocks in float32 2.5 %. They take a few percent of the
time."""


class MobileNetV2(Backbone):
    """torchvision's mobilenet_v2 without its head.

    The depth just finer than the grid is averaged down to it: features.3 at output stride 8, features.6 at 16. Output
    stride 16 has no features.3, because averaging twice would put it off centre.
    """

    affinity_depths = ("features.6", "features.13", "features.18")
    preprocessing = IMAGENET
    output_strides = (8, 16)
    dropout = 0.2
    foreign_heads = ("classifier.",)
    float32_weights = tuple(f"features.{index}" for index in range(NUM_EXACT_BLOCKS))

    def __init__(self, name: str = "mobilenet_v2", *, output_stride: int = 8) -> None:
        import torchvision  # takes seconds, and not every process builds one

        depths = list(CHANNELS)[0 if output_stride == 8 else 1 :]
        super().__init__(name=name, output_stride=output_stride, channels={depth: CHANNELS[depth] for depth in depths})
        self.features = torchvision.models.mobilenet_v2(weights=None, norm_layer=FrozenBatchNorm2d).features
        dilate(self.features, input_stride=1, output_stride=output_stride)
        _centre_cells(self.features)
        freeze(self.features[0], self.features[1])

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return the outputs of the blocks that `channels` names."""
        outputs: dict[str, Tensor] = {}
        for index, block in enumerate(self.features):
            exact = index < NUM_EXACT_BLOCKS and not self.training
            with torch.autocast(x.device.type, enabled=False) if exact else nullcontext():
                x = block(x)
            if f"features.{index}" in self.channels:
                outputs[f"features.{index}"] = x
        finest = next(iter(outputs))
        return outputs | {finest: halve(outputs[finest], times=1)}


class RightBottomPaddedConv2d(nn.Conv2d):
    """A 3x3 stride-2 convolution that is padded at the right and bottom only; its output size is ceil(H / 2).

    Output i reads the pixels 2i..2i+2. At even sizes this is TensorFlow's "SAME"; at odd sizes, where TensorFlow pads
    both sides, two zeros are added instead of one, so that the centres don't depend on the image's size.
    """

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B D h w"]:
        """Pad and convolve."""
        height, width = x.shape[-2:]
        return super().forward(F.pad(x, (0, 1 + width % 2, 0, 1 + height % 2)))


def _centre_cells(features: nn.Sequential) -> None:
    strided = [
        (parent, name, conv)
        for parent in features.modules()
        for name, conv in parent.named_children()
        if isinstance(conv, nn.Conv2d) and conv.stride == (2, 2)
    ]
    for parent, name, conv in strided[:-1]:
        padded = RightBottomPaddedConv2d(
            conv.in_channels, conv.out_channels, 3, stride=2, groups=conv.groups, bias=conv.bias is not None
        )
        padded.load_state_dict(conv.state_dict())
        parent.add_module(name, padded)
