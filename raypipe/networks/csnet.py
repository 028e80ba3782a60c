"""CSNet finds salient objects with 0.1 million parameters.

A generalised octave convolution (gOctConv) reads and writes maps at several resolutions, each half the previous one:

    y_b = sum_a resize_{a→b}(W_ba * x_a)        max pooling before the convolution on the way down, bilinear after it up

There are four stages of blocks, each of one such convolution (1x1, or 3x3 after halving) and two depthwise 3x3 ones.
Three more gOctConvs fuse the outputs of the last three stages; between them each resolution passes 3x3 convolutions at
several dilations.

Conventions. Training pruned the channels of each resolution, so their numbers are read from the weights. The published
depthwise and dilated kernels are stored at a hundredth of their effective values. Input sides are multiples of 16.

Source: Gao et al., "Highly Efficient Salient Object Detection with 100K Parameters", ECCV 2020,
https://arxiv.org/abs/2003.05643, §3. The paper leaves strides, poolings, dilations and the factor of a hundred open;
they were inferred from the means and variances in the published weights' batch normalisations.
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.weights import check_finite

SIDE = 224
"""Both sides of the input in pixels, as in training; the network takes any multiples of 16."""
SIDE_MULTIPLE = 16
DILATIONS = (1, 2, 4, 8, 16)
NUM_STAGES = 5
_HALVING_STAGES = (2, 3, 4)
_KERNEL_SCALE = 100.0


class Normalized(nn.Module):
    """Batch normalisation and PReLU of each resolution."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for width in widths)
        self.prelus = nn.ModuleList(nn.PReLU(width) for width in widths)

    def finish(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return the convolution's maps after normalisation and PReLU."""
        return [prelu(bn(x)) for x, bn, prelu in zip(maps, self.bns, self.prelus, strict=True)]


class OctConv(Normalized):
    """gOctConv with normalisation; at stride 2 it first averages its inputs over 2x2 pixels."""

    def __init__(self, ins: Sequence[int], outs: Sequence[int], *, kernel: int, stride: int = 1) -> None:
        super().__init__(outs)
        self.ins, self.outs, self.stride = list(ins), list(outs), stride
        self.conv = nn.Conv2d(sum(ins), sum(outs), kernel, padding=kernel // 2, bias=False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps at the resolutions of `outs`, the finest first."""
        if self.stride == 2:
            maps = [F.avg_pool2d(x, 2) for x in maps]
        rows = torch.split(self.conv.weight, self.outs)
        return self.finish(
            [self._gather(maps, torch.split(kernels, self.ins, dim=1), target) for target, kernels in enumerate(rows)]
        )

    def _gather(self, maps: Sequence[Tensor], kernels: Sequence[Tensor], target: int) -> Tensor:
        parts = []
        for source, (x, kernel) in enumerate(zip(maps, kernels, strict=True)):
            if source < target:
                x = F.max_pool2d(x, 2 ** (target - source))
            part = F.conv2d(x, kernel, padding=self.conv.padding)
            if source > target:
                factor = 2 ** (source - target)
                part = F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
            parts.append(part)
        return torch.stack(parts).sum(dim=0)


class Depthwise(Normalized):
    """A depthwise 3x3 convolution with normalisation for each resolution."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__(widths)
        self.convs = nn.ModuleList(nn.Conv2d(w, w, 3, padding=1, groups=w, bias=False) for w in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps of the same shapes."""
        return self.finish([_KERNEL_SCALE * conv(x) for x, conv in zip(maps, self.convs, strict=True)])


class Block(nn.Module):
    """The paper's in-layer multi-scale block."""

    def __init__(self, ins: Sequence[int], outs: Sequence[int], *, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv1x1 = OctConv(ins, outs, kernel=kernel, stride=stride)
        self.conv3x3_1 = Depthwise(outs)
        self.conv3x3_2 = Depthwise(outs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Return maps at the resolutions of `outs`."""
        result: list[Tensor] = self.conv3x3_2(self.conv3x3_1(self.conv1x1(maps)))
        return result


class Pyramid(nn.Module):
    """Concatenates 3x3 convolutions of one resolution at several dilations; training has pruned some of them."""

    def __init__(self, width: int, widths: Mapping[int, int]) -> None:
        super().__init__()
        self.msconv = nn.ModuleDict(
            {
                str(index): nn.Conv2d(width, out, 3, padding=DILATIONS[index], dilation=DILATIONS[index], bias=False)
                for index, out in widths.items()
            }
        )
        self.bn = nn.BatchNorm2d(sum(widths.values()))
        self.prelu = nn.PReLU(sum(widths.values()))

    def forward(self, x: Tensor) -> Tensor:
        """Return maps of the same resolution."""
        parts = torch.cat([_KERNEL_SCALE * conv(x) for conv in self.msconv.values()], dim=1)
        result: Tensor = self.prelu(self.bn(parts))
        return result


class Fusion(nn.Module):
    """The paper's cross-stages fusion."""

    def __init__(
        self, ins: Sequence[int], widths: Sequence[int], pyramids: Sequence[Mapping[int, int]], out: int
    ) -> None:
        super().__init__()
        self.fuse = OctConv(ins, widths, kernel=1)
        self.ms = nn.Module()
        self.ms.convs = nn.ModuleList(Pyramid(width, parts) for width, parts in zip(widths, pyramids, strict=True))
        self.fuse1x1 = OctConv([sum(parts.values()) for parts in pyramids], [out], kernel=1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Return maps at the finest resolution."""
        pyramids = self.get_submodule("ms.convs").children()
        maps = [pyramid(x) for x, pyramid in zip(self.fuse(maps), pyramids, strict=True)]
        result: Tensor = self.fuse1x1(maps)[0]
        return result


class CSNet(nn.Module):
    """CSNet with random weights of the shapes in a state dict.

    Args:
        state: tensors by their published names.

    Raises:
        ValueError: the names aren't those of a CSNet.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        ins: list[int] = [3]
        ends = []
        for stage in range(NUM_STAGES):
            blocks: list[nn.Module] = []
            while (name := f"stage{stage}.{len(blocks)}.conv1x1") + ".conv.weight" in state:
                outs = _widths(state, name)
                stride = 2 if stage in _HALVING_STAGES and not blocks else 1
                kernel = state[f"{name}.conv.weight"].shape[-1]
                blocks.append(Block(ins, outs, kernel=kernel, stride=stride))
                ins = outs
            if not blocks:
                raise ValueError(f"no stage{stage}.0.conv1x1.conv.weight: these aren't the weights of a CSNet")
            self.add_module(f"stage{stage}", nn.Sequential(*blocks))
            ends.append(ins[0])
        widths = _widths(state, "oct_fuse.fuse")
        pyramids = [_pyramid_widths(state, f"oct_fuse.ms.convs.{index}") for index in range(len(widths))]
        (out,) = _widths(state, "oct_fuse.fuse1x1") or [1]
        self.oct_fuse = Fusion(ends[-len(widths) :], widths, pyramids, out)
        self.cls_layer = nn.Conv2d(out, 1, 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1 H W"]:
        """Return the saliency in [0, 1] of normalised images, computed at half their resolution and resized to it.

        Raises:
            ValueError: the sides aren't multiples of 16.
        """
        if any(side % SIDE_MULTIPLE or not side for side in x.shape[2:]):
            raise ValueError(f"expected sides that are multiples of 16, got {tuple(x.shape[2:])} pixels")
        maps, ends = [x], []
        for stage in range(NUM_STAGES):
            maps = self.get_submodule(f"stage{stage}")(maps)
            ends.append(maps[0])
        logits = self.cls_layer(self.oct_fuse(ends[-len(self.oct_fuse.fuse.ins) :]))
        return F.interpolate(logits, size=x.shape[2:], mode="bilinear", align_corners=False).sigmoid()


def _widths(state: Mapping[str, Tensor], name: str) -> list[int]:
    """Return the channels of each resolution that a convolution writes."""
    widths: list[int] = []
    while (key := f"{name}.bns.{len(widths)}.weight") in state:
        widths.append(len(state[key]))
    return widths


def _pyramid_widths(state: Mapping[str, Tensor], name: str) -> dict[int, int]:
    keys = {index: f"{name}.msconv.{index}.weight" for index in range(len(DILATIONS))}
    return {index: len(state[key]) for index, key in keys.items() if key in state}


def load_csnet(state: Mapping[str, Tensor], *, source: str) -> CSNet:
    """Return a CSNet with its published weights, in eval mode.

    Args:
        state: tensors by the published names.
        source: where the weights come from, for messages.

    Raises:
        ValueError: the weights are another network's, or hold NaN or infinity.
    """
    try:
        network = CSNet(state)
        missing, unexpected = network.load_state_dict(state, strict=False)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{source} doesn't fit csnet: {error}") from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise ValueError(
            f"{source} doesn't fit csnet: {len(missing)} weights are missing ({', '.join(missing[:3])}), "
            f"{len(unexpected)} are unknown ({', '.join(unexpected[:3])}); bring the published weights of csnet"
        )
    check_finite(state, source=source)
    return network.eval()
