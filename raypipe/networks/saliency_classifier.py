"""The classifier of EPS and EPS++: it has a map of the background too, and a softmax over all maps in each pixel.

    s_c(p) = w_c · f(p)        z_c = mean_p s_c(p), c <= C        M(p) = softmax(s(p))

f: the backbone's last map; w_c: row c of a bias-free 1x1 convolution; z_c: logit of class c; M_c: its map.
Conventions: channel c is the dataset's object class c, the LAST channel is the background, which no image is labelled
with. Maps sum to 1 over the C + 1 channels.

Source: Lee et al., "Railroad is not a Train", CVPR 2021, https://arxiv.org/abs/2105.08965, §3.1.
"""

from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones import Backbone, build_backbone
from raypipe.networks.network import Network
from raypipe.networks.preprocessing import Preprocessing


class SaliencyClassifier(Network):
    """Backbone, Dropout2d, a bias-free 1x1 to the classes and the background, and global average pooling."""

    heads = ("fc8",)

    def __init__(self, backbone: Backbone, *, num_classes: int, preprocessing: Preprocessing | None = None) -> None:
        super().__init__(backbone, preprocessing=preprocessing)
        if num_classes < 1:
            raise ValueError(f"expected at least one object class, got num_classes={num_classes}")
        self.num_classes = num_classes
        self.dropout = nn.Dropout2d(backbone.dropout)
        self.fc8 = nn.Conv2d(backbone.channels[backbone.last_depth], num_classes + 1, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B channels h w"]]:
        """Return the logits z of normalised images, and the logits s of their pixels."""
        scores: Tensor = self.fc8(self.dropout(self.backbone(x)[self.backbone.last_depth]))
        return scores[:, :-1].mean(dim=(2, 3)), scores

    def classify(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Return the logits z of normalised images."""
        logits: Tensor = self(x)[0]
        return logits

    def cam(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Return the maps M of the classes, without the background's."""
        scores: Tensor = self(x)[1]
        return scores.softmax(dim=1)[:, :-1]


def build_saliency_classifier(
    backbone: str, *, num_classes: int, output_stride: int = 8, preprocessing: Preprocessing | None = None
) -> SaliencyClassifier:
    """Return a classifier with a map of the background, with random weights.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: object classes, background not counted.
        output_stride: pixels per cell of the maps: 8, or 16 for torchvision's networks (faster, coarser).
        preprocessing: the one that the weights to load were trained with; by default the backbone's.

    Raises:
        ValueError: an unknown backbone, or a stride that it doesn't have.
    """
    network = build_backbone(backbone, output_stride=output_stride)
    return SaliencyClassifier(network, num_classes=num_classes, preprocessing=preprocessing)
