"""The segmentation network: the only one that is used at test time (AffinityNet §3.5).

Conventions: channel 0 is the background, channel c the class id c; scores are logits on the grid of stride 8, whatever
the backbone's output stride.
"""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from raypipe.networks.backbones import Backbone, build_backbone, output_strides
from raypipe.networks.heads import COARSE_HEADS, build_head
from raypipe.networks.network import Network
from raypipe.networks.preprocessing import Preprocessing
from raypipe.schema import GRID_STRIDE


class Segmenter(Network):
    """A backbone and a segmentation head."""

    heads = ("head",)

    def __init__(
        self, backbone: Backbone, *, head: str, num_classes: int, preprocessing: Preprocessing | None = None
    ) -> None:
        super().__init__(backbone, preprocessing=preprocessing)
        if num_classes < 1:
            raise ValueError(f"num_classes is {num_classes}, at least one object class is needed")
        self.num_classes = num_classes
        self.head = build_head(head, backbone, num_labels=num_classes + 1)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B L h w"]:
        """Return the logits of normalised images, L = C + 1."""
        maps = list(self.backbone(x).values())
        logits: Tensor = self.head(maps[0], maps[-1])
        if self.output_stride == GRID_STRIDE:
            return logits
        # A cell of stride 16 is as large as four of stride 8; an odd grid leaves its last ones out.
        doubled = F.interpolate(logits, scale_factor=self.output_stride // GRID_STRIDE, mode="bilinear")
        height, width = (-(-side // GRID_STRIDE) for side in x.shape[-2:])
        # Negative padding crops into a new tensor; torch.export would take a view's strides for a condition on sizes.
        return F.pad(doubled, (0, width - doubled.shape[-1], 0, height - doubled.shape[-2]))


def build_segmenter(
    backbone: str,
    *,
    head: str,
    num_classes: int,
    preprocessing: Preprocessing | None = None,
) -> Segmenter:
    """Return a segmentation network with random weights; `load_weights` brings pretrained ones.

    The backbone's output stride is 16 with heads that were published at it, where the backbone has it, else 8.

    Args:
        backbone: one of `BACKBONES`.
        head: one of `HEADS`.
        num_classes: object classes, background not counted.
        preprocessing: of the weights that will be loaded; by default the backbone's own.

    Raises:
        ValueError: an unknown backbone or head.
    """
    options = {"fc6_dilation": 12} if backbone == "vgg16" and head == "largefov" else {}
    output_stride = 16 if head in COARSE_HEADS and 16 in output_strides(backbone) else GRID_STRIDE
    network = build_backbone(backbone, output_stride=output_stride, **options)
    return Segmenter(network, head=head, num_classes=num_classes, preprocessing=preprocessing)
