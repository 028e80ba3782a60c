"""The segmentation network, the only network that is used at test time (AffinityNet §3.5).

Conventions: channel 0 is the background, channel c the class id c; scores are logits on the grid of stride 8, whatever
the backbone's output stride.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.networks.backbones import Backbone, build_backbone, output_strides
from raypipe.networks.heads import COARSE_HEADS, build_head
from raypipe.networks.network import Network, check_num_classes
from raypipe.schema import GRID_STRIDE


class Segmenter(Network):
    """A backbone and a segmentation head."""

    heads = ("head",)

    def __init__(self, backbone: Backbone, *, head: str, num_classes: int) -> None:
        super().__init__(backbone)
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self.head = build_head(head, backbone, num_labels=num_classes + 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L h w"]:
        """Return the logits of normalised images, L = C + 1."""
        maps = list(self.backbone(x).values())
        logits: Tensor = self.head(maps[0], maps[-1])
        if self.backbone.output_stride == GRID_STRIDE:
            return logits
        # A cell of stride 16 covers two by two cells of stride 8; a grid of odd size has no second one at its end.
        doubled = F.interpolate(logits, scale_factor=self.backbone.output_stride // GRID_STRIDE, mode="bilinear")
        height, width = (-(-side // GRID_STRIDE) for side in x.shape[-2:])
        # Negative padding crops into a new tensor; torch.export would take a view's strides for a condition on sizes.
        return F.pad(doubled, (0, width - doubled.shape[-1], 0, height - doubled.shape[-2]))


def build_segmenter(backbone: str, *, head: str, num_classes: int) -> Segmenter:
    """Return a segmentation network with random weights; `load_weights` brings pretrained ones.

    The backbone's output stride is 16 with heads that were published at it, where the backbone has it, else 8.

    Args:
        backbone: one of `BACKBONES`.
        head: one of `HEADS`.
        num_classes: object classes, background not counted.

    Raises:
        ValueError: an unknown backbone or head.
    """
    options = {"fc6_dilation": 12} if backbone == "vgg16" and head == "largefov" else {}
    output_stride = 16 if head in COARSE_HEADS and 16 in output_strides(backbone) else GRID_STRIDE
    network = build_backbone(backbone, output_stride=output_stride, **options)
    return Segmenter(network, head=head, num_classes=num_classes)
