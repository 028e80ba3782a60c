import pytest
import torch
from torch import Tensor

from raypipe.networks import SaliencyClassifier, build_classifier, build_saliency_classifier, load_state
from raypipe.networks.backbones import Backbone
from raypipe.networks.preprocessing import IMAGENET


class Pixels(Backbone):
    """A backbone whose features are its input."""

    affinity_depths = ("pixels", "pixels", "pixels")
    preprocessing = IMAGENET
    output_strides = (1,)

    def __init__(self) -> None:
        super().__init__(name="pixels", output_stride=1, channels={"pixels": 3})

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"pixels": x}


def test_logits_and_maps_by_hand() -> None:
    network = SaliencyClassifier(Pixels(), num_classes=2).eval()
    network.fc8.weight.data = torch.eye(3).reshape(3, 3, 1, 1)  # the third channel is the background's
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]]).reshape(1, 3, 1, 2)
    logits, scores = network(x)
    assert logits.tolist() == [[2.0, 2.0]]
    assert network.classify(x).tolist() == [[2.0, 2.0]]
    torch.testing.assert_close(scores, x)
    torch.testing.assert_close(network.cam(x), x.softmax(1)[:, :2])


def test_maps_are_probabilities_without_the_backgrounds() -> None:
    torch.manual_seed(0)
    network = build_saliency_classifier("tiny", num_classes=4).eval()
    maps = network.cam(torch.randn(2, 3, 41, 24))
    assert maps.shape == (2, 4, 6, 3)
    assert (maps > 0).all()
    assert (maps.sum(1) < 1).all()


def test_weights_of_a_plain_classifier_are_refused() -> None:
    plain = build_classifier("tiny", num_classes=4)
    with pytest.raises(ValueError, match=r"fc8\.weight \(4, .* instead of \(5"):
        load_state(build_saliency_classifier("tiny", num_classes=4), plain.state_dict(), source="plain")


def test_a_network_without_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one object class"):
        build_saliency_classifier("tiny", num_classes=0)
