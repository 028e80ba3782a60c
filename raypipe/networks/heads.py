"""Heads that score the classes in each cell of a backbone's maps: DeepLab-LargeFOV, DeepLabV3, DeepLabV3+, LR-ASPP.

They are torchvision's, where it has them, with GroupNorm (Wu & He, 2018) instead of BatchNorm: a batch's statistics
would make the loss depend on how the batch is split over workers.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones import Backbone

MAX_GROUPS = 32

ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18)}
"""Dilations of atrous spatial pyramid pooling by output stride (Chen et al., 2017, §4.1)."""


class Head(nn.Module):
    """Turns a shallow map and the last map of a backbone into scores; all are on one grid."""

    def __init__(self, classify: nn.Module) -> None:
        super().__init__()
        self.classify = classify

    def forward(self, low: Float[Tensor, "B _ h w"], high: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B L h w"]:  # noqa: ARG002 - not every head looks at both
        """Return the scores."""
        scores: Tensor = self.classify(high)
        return scores


class DeepLabV3Plus(Head):
    """DeepLabV3's pyramid, then a decoder that sees the shallow map too (Chen et al., 2018, §3.1).

    The decoder works on the grid of the last map: backbones here average shallow maps down to it.
    """

    def __init__(self, backbone: Backbone, num_labels: int) -> None:
        from torchvision.models.segmentation.deeplabv3 import ASPP  # takes seconds

        super().__init__(nn.Sequential(_conv3x3(256 + 48, 256), _conv3x3(256, 256), nn.Conv2d(256, num_labels, 1)))
        low_channels, high_channels = _low_and_high(backbone)
        self.pyramid = ASPP(high_channels, ATROUS_RATES[backbone.output_stride])
        self.reduce = nn.Sequential(nn.Conv2d(low_channels, 48, 1, bias=False), nn.BatchNorm2d(48), nn.ReLU())

    def forward(self, low: Float[Tensor, "B _ h w"], high: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B L h w"]:
        """Return the scores."""
        scores: Tensor = self.classify(torch.cat([self.pyramid(high), self.reduce(low)], dim=1))
        return scores


class LrAspp(Head):
    """Lite R-ASPP of MobileNetV3 (Howard et al., 2019, §6.3)."""

    def __init__(self, backbone: Backbone, num_labels: int) -> None:
        from torchvision.models.segmentation.lraspp import LRASPPHead  # takes seconds

        super().__init__(LRASPPHead(*_low_and_high(backbone), num_labels, inter_channels=128))

    def forward(self, low: Float[Tensor, "B _ h w"], high: Float[Tensor, "B _ h w"]) -> Float[Tensor, "B L h w"]:
        """Return the scores."""
        scores: Tensor = self.classify({"low": low, "high": high})
        return scores


def _large_fov(backbone: Backbone, num_labels: int) -> Head:
    """DeepLab-LargeFOV (Chen et al., 2015, §4.2): one 3x3 convolution of dilation 12, then 1x1 ones.

    VGG16 contains these layers already: fc6 and fc7.
    """
    channels = backbone.channels[backbone.last_depth]
    if backbone.name == "vgg16":
        return Head(nn.Conv2d(channels, num_labels, 1))
    return Head(
        nn.Sequential(
            *(nn.Conv2d(channels, 512, 3, padding=12, dilation=12), nn.ReLU(), nn.Dropout2d(0.5)),
            *(nn.Conv2d(512, 512, 1), nn.ReLU(), nn.Dropout2d(0.5)),
            nn.Conv2d(512, num_labels, 1),
        )
    )


def _deeplabv3(backbone: Backbone, num_labels: int) -> Head:
    from torchvision.models.segmentation.deeplabv3 import DeepLabHead  # takes seconds

    rates = ATROUS_RATES[backbone.output_stride]
    return Head(DeepLabHead(backbone.channels[backbone.last_depth], num_labels, rates))


HEADS: dict[str, Callable[[Backbone, int], Head]] = {
    "largefov": _large_fov,
    "deeplabv3": _deeplabv3,
    "deeplabv3plus": DeepLabV3Plus,
    "lraspp": LrAspp,
}
"""Heads by name."""

COARSE_HEADS = frozenset({"deeplabv3plus", "lraspp"})
"""Heads that were published at output stride 16, for the sake of speed; the others at 8."""


def build_head(name: str, backbone: Backbone, *, num_labels: int) -> Head:
    """Return a head with random weights.

    Args:
        name: one of `HEADS`.
        backbone: the head reads its maps.
        num_labels: number of classes including the background.

    Raises:
        ValueError: an unknown head.
    """
    if name not in HEADS:
        raise ValueError(f"there is no head {name!r}; choose one of {', '.join(HEADS)}")
    head = HEADS[name](backbone, num_labels)
    _replace_batchnorm(head)
    return head


def _low_and_high(backbone: Backbone) -> tuple[int, int]:
    return next(iter(backbone.channels.values())), backbone.channels[backbone.last_depth]


def _conv3x3(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels), nn.ReLU()
    )


def _replace_batchnorm(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            groups = next(n for n in range(min(MAX_GROUPS, child.num_features), 0, -1) if child.num_features % n == 0)
            setattr(module, name, nn.GroupNorm(groups, child.num_features))
        else:
            _replace_batchnorm(child)
