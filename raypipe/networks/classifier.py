"""The multi-label classifier whose weights give the class activation maps (AffinityNet §3.1; Zhou et al., 2016).

    z_c = mean_p w_c · f(p)        M_c(p) = relu(w_c · f(p))

f: the backbone's last map; w_c: row c of a bias-free 1x1 convolution; z_c: logit; M_c: class activation map.
Conventions: channel c is the dataset's object class c, which has class id c + 1 in masks; there is no background
channel. Maps are not normalised.
"""

from abc import abstractmethod
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from raypipe.networks.backbones import Backbone, build_backbone
from raypipe.networks.network import Network, check_num_classes


class AnyClassifier(Network):
    """What every kind of classifier has: a backbone, Dropout2d, and a bias-free 1x1 from its last map to the classes.

    Attributes:
        num_classes: object classes, background not counted.
        num_backgrounds: channels of the 1x1 behind those of the classes.
        refit: a second 1x1, from the last map, each cell's features of length 1, to background and classes, in the
            order of class ids. `raypipe.ops.refit` solves for its weights; None without.
    """

    heads = ("fc8",)
    num_backgrounds: ClassVar[int] = 0

    def __init__(self, backbone: Backbone, *, num_classes: int) -> None:
        super().__init__(backbone)
        check_num_classes(num_classes)
        self.num_classes = num_classes
        self.dropout = nn.Dropout2d(backbone.dropout)
        self.fc8 = nn.Conv2d(backbone.channels[backbone.last_depth], num_classes + self.num_backgrounds, 1, bias=False)
        nn.init.xavier_uniform_(self.fc8.weight)
        self.refit: nn.Conv2d | None = None

    def add_refit(self) -> nn.Conv2d:
        """Give the network its second 1x1, with random weights."""
        self.refit = nn.Conv2d(self.backbone.channels[self.backbone.last_depth], self.num_classes + 1, 1)
        return self.refit

    @abstractmethod
    def classify(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Return the logits z of normalised images."""

    @abstractmethod
    def maps(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C h w"]:
        """Return the class activation maps M of the backbone's last map, without the background's."""

    def cam(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Return the class activation maps M of normalised images; see `maps`."""
        return self.maps(self._features(x))

    def maps_and_features(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B channels h w"]:
        """Return the class activation maps M of normalised images and, behind them, what `refit` reads, in float32."""
        features = self._features(x)
        return torch.cat([self.maps(features).float(), F.normalize(features.float(), dim=1)], dim=1)

    def refit_scores(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B channels h w"]:
        """Return the scores of the second 1x1 for background and classes, in float32; see `raypipe.ops.refit`."""
        assert self.refit is not None
        assert self.refit.bias is not None
        features = F.normalize(self._features(x).float(), dim=1)
        with torch.autocast(x.device.type, enabled=False):  # small differences of the scores count
            return F.conv2d(features, self.refit.weight.float(), self.refit.bias.float())

    def _features(self, x: Tensor) -> Tensor:
        features: Tensor = self.backbone(x)[self.backbone.last_depth]
        return features


class Classifier(AnyClassifier):
    """Multi-label classifier, with global average pooling before the 1x1 to the classes."""

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Return the logits z of normalised images."""
        features = self.dropout(self._features(x))
        logits: Tensor = self.fc8(features.mean(dim=(2, 3), keepdim=True))
        return logits.flatten(1)

    def classify(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Return the logits z of normalised images."""
        logits: Tensor = self(x)
        return logits

    def maps(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C h w"]:
        """Return the class activation maps M, not normalised; for vgg16 their square roots, as in psa."""
        maps = F.relu(self.fc8(features))
        return maps.sqrt() if self.backbone.sqrt_cam else maps


def build_classifier(backbone: str, *, num_classes: int, output_stride: int = 8) -> Classifier:
    """Return a classifier with random weights; `load_weights` brings pretrained ones.

    Args:
        backbone: one of `BACKBONES`.
        num_classes: object classes, background not counted.
        output_stride: pixels per cell of the maps: 8, or 16 for torchvision's networks (faster, coarser).

    Raises:
        ValueError: an unknown backbone, or a stride that it doesn't have.
    """
    return Classifier(build_backbone(backbone, output_stride=output_stride), num_classes=num_classes)
