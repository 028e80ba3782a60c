r"""Features of a backbone as it is, in the place of AffinityNet's: affinities without training.

    f = [d_1 / |d_1|, d_2 / |d_2|, d_3 / |d_3|]        so that cos(f_i, f_j) is the mean of the three depths' cosines

with d_1, d_2, d_3 a cell's features at the three depths that AffinityNet's head reads. Each depth counts alike,
whatever its scale and its number of channels. Together they were better than each alone
(benchmarks/frozen_affinity.md).
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.networks.backbones import Backbone, build_backbone
from raypipe.networks.network import Network
from raypipe.ops.cosine_affinity import cosine_affinity


class FrozenFeatures(Network):
    """The three depths of a backbone that AffinityNet reads, each of length 1 in every cell; nothing is trained."""

    heads: ClassVar[tuple[str, ...]] = ()
    pair = staticmethod(cosine_affinity)

    def __init__(self, backbone: Backbone) -> None:
        super().__init__(backbone)
        self.requires_grad_(requires_grad=False)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B _ h w"]:
        """Return the features of normalised images, in float32."""
        maps = self.backbone(x)
        depths = [maps[depth].float() for depth in self.backbone.affinity_depths]
        return torch.cat([F.normalize(features, dim=1) for features in depths], dim=1)


def build_frozen_features(backbone: str) -> FrozenFeatures:
    """Return the features at stride 8 with random weights; `load_weights` brings pretrained ones.

    Args:
        backbone: one of `BACKBONES`.

    Raises:
        ValueError: an unknown backbone.
    """
    return FrozenFeatures(build_backbone(backbone))
