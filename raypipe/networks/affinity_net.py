"""AffinityNet: features whose distances say whether two neighbouring pixels belong together (AffinityNet §3.2, Fig. 3).

    f = elu(1x1(concat_k elu(1x1_k(depth_k))))        k = 1, 2, 3; 64 + 128 + 256 = 448 channels

Conventions: features live on the grid of stride 8; the affinity of cells i and j is exp(-mean |f_i - f_j|).
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones import Backbone, build_backbone
from raypipe.networks.network import Network
from raypipe.ops.affinity import pairwise_affinity

WIDTHS = (64, 128, 256)
NUM_GROUPS = (8, 16, 32)
NUM_FEATURES = sum(WIDTHS)


class AffinityNet(Network):
    """AffinityNet: a 1x1 convolution and ELU on each of three depths of a backbone, and a 1x1 on their concatenation.

    GroupNorm follows each 1x1 if the backbone's depths have no common scale, as psa does for VGG16 and irn for
    ResNet50. ResNet38's depths are normalised already.
    """

    heads = ("f8_3", "f8_4", "f8_5", "gn8_3", "gn8_4", "gn8_5", "f9")
    pair = staticmethod(pairwise_affinity)

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        channels = [backbone.channels[depth] for depth in backbone.affinity_depths]
        self.f8_3, self.f8_4, self.f8_5 = (
            nn.Conv2d(num, width, 1, bias=False) for num, width in zip(channels, WIDTHS, strict=True)
        )
        self.gn8_3, self.gn8_4, self.gn8_5 = (
            nn.GroupNorm(groups, width) if backbone.normalize_depths else nn.Identity()
            for groups, width in zip(NUM_GROUPS, WIDTHS, strict=True)
        )
        self.f9 = nn.Conv2d(NUM_FEATURES, NUM_FEATURES, 1, bias=False)
        for conv in (self.f8_3, self.f8_4, self.f8_5):
            nn.init.kaiming_normal_(conv.weight)
        nn.init.xavier_uniform_(self.f9.weight, gain=4)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 448 h w"]:
        """Return the features of normalised images."""
        maps = self.backbone(x)
        shallow, middle, deep = (maps[depth] for depth in self.backbone.affinity_depths)
        branches = [
            F.elu(self.gn8_3(self.f8_3(shallow))),
            F.elu(self.gn8_4(self.f8_4(middle))),
            F.elu(self.gn8_5(self.f8_5(deep))),
        ]
        return F.elu(self.f9(torch.cat(branches, dim=1)))


def build_affinity_net(backbone: str) -> AffinityNet:
    """Return an AffinityNet at stride 8 with random weights; `load_weights` brings pretrained ones.

    Args:
        backbone: one of `BACKBONES`.

    Raises:
        ValueError: an unknown backbone.
    """
    # psa dilates VGG16's fc6 for AffinityNet only.
    network = build_backbone("vgg16", fc6_dilation=4) if backbone == "vgg16" else build_backbone(backbone)
    return AffinityNet(network)
