"""Base class of the backbones, and what they do to convolutions: freezing and dilating.

Conventions:
    - Output size is h = ceil(H / output_stride) for every H >= 1, so images need no padding before the network.
    - Cell i of the grid stands for pixels [8i, 8i + 8), whose centre is 8i + 3.5, and looks there, to half a pixel, as
      `measure_centres` shows. Only psa's networks, `resnet38` and `vgg16`, look at 8i, as published networks do that
      pad their stride-2 layers on both sides: their checkpoints and golden numbers are psa's.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.preprocessing import Preprocessing

_PLAIN_CONVOLUTIONS = ("Conv2d", "Conv2dSame", "RightBottomPaddedConv2d")
"""By name, as timm takes seconds to import. Those of other classes may work on their weights before they convolve."""


class Backbone(nn.Module, ABC):
    """A feature extractor with named depths.

    Attributes:
        name: name by which `build_backbone` builds it.
        output_stride: pixels per cell of every depth that `forward` returns.
        channels: channels of each depth, shallow first; the last depth feeds the classifier.
        affinity_depths: the three depths that AffinityNet's head reads, shallow first. The third is the last depth:
            layers that nothing reads would get no gradient, which distributed training refuses.
        preprocessing: the normalisation that its published weights were trained with.
        output_strides: output strides that it can be built at.
        dropout: dropout rate before the classifier.
        normalize_depths: whether AffinityNet's head must normalise the depths.
        sqrt_cam: whether the class activation map is square-rooted.
        starts_from_scratch: whether it is trained without pretrained weights, so that every parameter is new.
        foreign_heads: prefixes of the ImageNet head's names in published checkpoints; they are dropped.
        float32_weights: names of modules whose weights stay float32 whatever the precision: they always infer in it, or
            work on their weights before they convolve.

    Raises:
        ValueError: it can't be built at this output stride.
    """

    name: str
    output_stride: int
    channels: dict[str, int]
    affinity_depths: tuple[str, str, str]
    preprocessing: Preprocessing
    output_strides: ClassVar[tuple[int, ...]] = (8,)
    dropout: ClassVar[float] = 0.0
    normalize_depths: ClassVar[bool] = True
    sqrt_cam: ClassVar[bool] = False
    starts_from_scratch: ClassVar[bool] = False
    foreign_heads: tuple[str, ...] = ()
    float32_weights: tuple[str, ...] = ()

    def __init__(self, *, name: str, output_stride: int, channels: dict[str, int]) -> None:
        super().__init__()
        if output_stride not in self.output_strides:
            choices = " or ".join(str(stride) for stride in self.output_strides)
            raise ValueError(f"expected output_stride {choices} for {name}, got {output_stride}")
        self.name = name
        self.output_stride = output_stride
        self.channels = channels

    @property
    def last_depth(self) -> str:
        """Name of the depth that feeds the classifier."""
        return next(reversed(self.channels))

    @abstractmethod
    def forward(self, x: Float[Tensor, "B 3 H W"]) -> dict[str, Float[Tensor, "B _ h w"]]:
        """Return the map of every depth, shallow first, all at the output stride."""


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that keeps its loaded statistics and affine parameters, even in `.train()`; an activation may follow.

    The batches of a fine-tuning are too small to estimate statistics, and changing statistics would make an image's
    mask depend on the other images in the batch.
    """

    def __init__(self, num_features: int, *, eps: float = 1e-5, act: nn.Module | None = None) -> None:
        super().__init__(num_features, eps=eps)
        self.act = nn.Identity() if act is None else act
        self.requires_grad_(requires_grad=False)
        self.eval()

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        """Apply the affine map of the frozen statistics, in one pass and in the input's precision.

        The backward pass of torch's BatchNorm takes three times as long, for gradients that nobody uses.
        """
        scale, shift = self.scale_and_shift()
        result: Tensor = self.act(torch.addcmul(shift.to(x.dtype)[:, None, None], x, scale.to(x.dtype)[:, None, None]))
        return result

    def scale_and_shift(self) -> tuple[Float[Tensor, " C"], Float[Tensor, " C"]]:
        """Return the numbers that it multiplies each channel by and adds to it."""
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight * torch.rsqrt(self.running_var + self.eps)
        return scale, self.bias - self.running_mean * scale

    def train(self, mode: bool = True) -> "FrozenBatchNorm2d":  # noqa: ARG002 - torch's signature
        """Stay in evaluation mode, whatever `mode` says."""
        super().train(mode=False)
        return self


def freeze_batchnorm(module: nn.Module) -> None:
    """Replace every BatchNorm by a frozen one, in place; timm's, which contain the activation, keep it.

    Raises:
        ValueError: there is a BatchNorm of another kind than of maps.
    """
    for name, child in module.named_children():
        if isinstance(child, FrozenBatchNorm2d):
            continue
        if isinstance(child, nn.BatchNorm2d):
            act = getattr(child, "act", None)
            frozen = FrozenBatchNorm2d(child.num_features, eps=child.eps, act=act)
            state = child.state_dict()
            frozen.load_state_dict(state, strict=child.affine)
            setattr(module, name, frozen)
        elif isinstance(child, nn.modules.batchnorm._BatchNorm):
            kind = type(child).__name__
            raise ValueError(f"{name} is a {kind}, which can't be frozen here: choose another network")  # noqa: TRY004
        else:
            freeze_batchnorm(child)


def convolves_plainly(module: nn.Module) -> bool:
    """Whether a module is a convolution that takes its weights as they are, however it pads: not standardised ones."""
    return isinstance(module, nn.Conv2d) and type(module).__name__ in _PLAIN_CONVOLUTIONS


def freeze(*modules: nn.Module) -> None:
    """Exclude the modules' parameters from training."""
    for module in modules:
        module.requires_grad_(requires_grad=False)


def dilate(*modules: nn.Module, input_stride: int, output_stride: int) -> None:
    """Turn strides beyond the output stride into dilations, in place ("à trous"; DeepLab §3.1).

    A stride-2 convolution that would exceed the output stride gets stride 1, and every k×k convolution after it twice
    the dilation, so each weight still sees the spacing that it was trained with. This changes single convolutions, so
    it also works for blocks that refuse torchvision's `replace_stride_with_dilation`.

    Args:
        modules: in forward order. A 1x1 convolution with a stride is a shortcut that follows its k×k convolution.
        input_stride: pixels per cell of the first module's input.
        output_stride: pixels per cell of the last module's output, afterwards.
    """
    stride, dilation = input_stride, 1
    convolutions = [conv for module in modules for conv in module.modules() if isinstance(conv, nn.Conv2d)]
    for conv in convolutions:
        is_strided = conv.stride != (1, 1)
        if conv.kernel_size == (1, 1):
            if is_strided and dilation > 1:
                conv.stride = (1, 1)
            continue
        conv.dilation = (dilation, dilation)
        conv.padding = tuple(dilation * (size - 1) // 2 for size in conv.kernel_size)
        if is_strided and stride >= output_stride:
            conv.stride = (1, 1)
            dilation *= 2
        elif is_strided:
            stride *= 2


def halve(x: Float[Tensor, "B C H W"], *, times: int) -> Float[Tensor, "B C h w"]:
    """Average 3×3 neighbourhoods at stride 2, centred where a symmetrically padded stride-2 convolution is centred."""
    for _ in range(times):
        x = F.avg_pool2d(x, kernel_size=3, stride=2, padding=1, count_include_pad=False)
    return x
