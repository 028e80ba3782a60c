"""The classifier of EPS and EPS++: it has a map of the background too, and a softmax over all maps in each pixel.

    s_c(p) = w_c · f(p)        z_c = mean_p s_c(p), c <= C        M(p) = softmax(s(p))

f: the backbone's last map; w_c: row c of a bias-free 1x1 convolution; z_c: logit of class c; M_c: its map.
Conventions: channel c is the dataset's object class c, the LAST channel is the background, which no image is labelled
with. Maps sum to 1 over the C + 1 channels.

Source: Lee et al., "Railroad is not a Train", CVPR 2021, https://arxiv.org/abs/2105.08965, §3.1.
"""

from jaxtyping import Float
from torch import Tensor

from raypipe.networks.backbones import build_backbone
from raypipe.networks.classifier import AnyClassifier


class SaliencyClassifier(AnyClassifier):
    """Classifier with a map of the background, and global average pooling behind the 1x1 to the maps."""

    num_backgrounds = 1

    def forward(self, x: Float[Tensor, "B 3 H W"]) -> tuple[Float[Tensor, "B C"], Float[Tensor, "B channels h w"]]:
        """Return the logits z of normalised images, and the logits s of their pixels."""
        scores: Tensor = self.fc8(self.dropout(self._features(x)))
        return scores[:, :-1].mean(dim=(2, 3)), scores

    def classify(self, x: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C"]:
        """Return the logits z of normalised images."""
        logits: Tensor = self(x)[0]
        return logits

    def maps(self, features: Float[Tensor, "B D h w"]) -> Float[Tensor, "B C h w"]:
        """Return the maps M of the classes, without the background's."""
        scores: Tensor = self.fc8(features)
        return scores.float().softmax(dim=1)[:, :-1]


def build_saliency_classifier(backbone: str, *, num_classes: int, output_stride: int = 8) -> SaliencyClassifier:
    """Return a classifier with a map of the background; arguments and errors as of `build_classifier`."""
    return SaliencyClassifier(build_backbone(backbone, output_stride=output_stride), num_classes=num_classes)
