"""U²-Net-P: salient objects by a U of small Us.

A residual U-block (RSU) of depth L is a U-Net of L levels whose result is added to its input; RSU-4F stays at one
resolution and dilates instead. Six of them go down, five come up, each of the six results is a saliency map, and a 1x1
convolution merges the maps.

Conventions. Module names are those of the published weights (u2netp.pth, 1.13 million parameters). Each level halves by
a 2x2 max pooling, rounding up; what comes up is resized bilinearly, align_corners=False.

Source: Qin et al., "U²-Net: Going Deeper with Nested U-Structure for Salient Object Detection", Pattern Recognition
2020, https://arxiv.org/abs/2005.09007, §3, Tab. 1.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

WIDTH, MIDDLE = 64, 16
"""Channels of a block's result, and within it."""

DEPTHS = (7, 6, 5, 4)
"""Levels of the first four blocks down, and of the last four up; the others are RSU-4F."""


class Conv(nn.Module):
    """3x3 convolution, batch normalisation, ReLU."""

    def __init__(self, ins: int, outs: int, dilation: int = 1) -> None:
        super().__init__()
        self.conv_s1 = nn.Conv2d(ins, outs, 3, padding=dilation, dilation=dilation)
        self.bn_s1 = nn.BatchNorm2d(outs)

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same resolution."""
        return F.relu(self.bn_s1(self.conv_s1(x)))


class ResidualU(nn.Module):
    """RSU of some depth; `dilated` stays at one resolution, with dilations 1, 2, 4, 8."""

    def __init__(self, depth: int, ins: int, *, dilated: bool = False) -> None:
        super().__init__()
        self.depth, self.dilated = depth, dilated
        self.rebnconvin = Conv(ins, WIDTH)
        for level in range(1, depth + 1):
            bottom = 2 ** (level - 1) if dilated else 2 if level == depth else 1
            self.add_module(f"rebnconv{level}", Conv(WIDTH if level == 1 else MIDDLE, MIDDLE, bottom))
        for level in range(depth - 1, 0, -1):
            dilation = 2 ** (level - 1) if dilated else 1
            self.add_module(f"rebnconv{level}d", Conv(2 * MIDDLE, WIDTH if level == 1 else MIDDLE, dilation))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same resolution."""
        x = self.rebnconvin(x)
        maps = [x]
        for level in range(1, self.depth + 1):
            # The second level works at the first one's resolution halved, and so on; the last two share theirs.
            halve = not self.dilated and 1 < level < self.depth
            maps.append(self.get_submodule(f"rebnconv{level}")(_halve(maps[-1]) if halve else maps[-1]))
        up = maps[self.depth]
        for level in range(self.depth - 1, 0, -1):
            up = self.get_submodule(f"rebnconv{level}d")(torch.cat([_resize(up, maps[level]), maps[level]], dim=1))
        return up + x


class U2NetP(nn.Module):
    """U²-Net-P with random weights."""

    def __init__(self) -> None:
        super().__init__()
        for stage in range(1, 7):
            self.add_module(f"stage{stage}", _block(stage, 3 if stage == 1 else WIDTH))
        for stage in range(5, 0, -1):
            self.add_module(f"stage{stage}d", _block(stage, 2 * WIDTH))
        for stage in range(1, 7):
            self.add_module(f"side{stage}", nn.Conv2d(WIDTH, 1, 3, padding=1))
        self.outconv = nn.Conv2d(6, 1, 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Return the saliency in [0, 1] of normalised images, the merged map, of each image from 0 to 1."""
        down = [self.get_submodule("stage1")(x)]
        for stage in range(2, 7):
            down.append(self.get_submodule(f"stage{stage}")(_halve(down[-1])))
        ups = [down[-1]]
        for stage in range(5, 0, -1):
            skip = down[stage - 1]
            ups.append(self.get_submodule(f"stage{stage}d")(torch.cat([_resize(ups[-1], skip), skip], dim=1)))
        sides = [self.get_submodule(f"side{stage}")(maps) for stage, maps in enumerate(reversed(ups), start=1)]
        saliency = self.outconv(torch.cat([_resize(side, sides[0]) for side in sides], dim=1)).sigmoid()
        low, high = saliency.amin(dim=(2, 3), keepdim=True), saliency.amax(dim=(2, 3), keepdim=True)
        stretched: Tensor = (saliency - low) / (high - low).clamp(min=1e-8)
        return stretched


def _block(stage: int, ins: int) -> ResidualU:
    return ResidualU(DEPTHS[stage - 1], ins) if stage <= len(DEPTHS) else ResidualU(4, ins, dilated=True)


def _halve(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 2, stride=2, ceil_mode=True)


def _resize(x: Tensor, like: Tensor) -> Tensor:
    return F.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=False)
