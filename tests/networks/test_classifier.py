from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from raypipe.networks import Classifier, build_classifier, load_weights
from raypipe.networks.backbones import Backbone
from raypipe.networks.preprocessing import CAFFE, IMAGENET
from raypipe.storage import read_bytes

NAMES = ("resnet18", "mobilenet_v2", "tiny", "vgg16")


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
    network = Classifier(Pixels(), num_classes=2)
    network.fc8.weight.data = torch.tensor([[1.0, 0.0, -1.0], [0.5, 0.5, 0.0]]).reshape(2, 3, 1, 1)
    x = torch.tensor([[1.0, 3.0], [2.0, 2.0], [4.0, 0.0]]).reshape(1, 3, 1, 2)
    assert network(x).tolist() == [[0.0, 2.0]]
    assert network.cam(x).tolist() == [[[[0.0, 3.0]], [[1.5, 2.5]]]]


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_mean_of_the_maps_before_their_relu(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(name, num_classes=4).eval()
    x = torch.randn(2, 3, 41, 24)
    with torch.no_grad():
        scores = network.fc8(network.backbone(x)[network.backbone.last_depth])
        torch.testing.assert_close(network(x), scores.mean(dim=(2, 3)))
        maps = scores.relu()
        torch.testing.assert_close(network.cam(x), maps.sqrt() if name == "vgg16" else maps)


def test_attributes() -> None:
    network = build_classifier("mobilenet_v2", num_classes=7, output_stride=16)
    assert (network.backbone.name, network.num_classes, network.backbone.output_stride) == ("mobilenet_v2", 7, 16)
    assert network.preprocessing == IMAGENET
    with torch.device("meta"):
        assert build_classifier("vgg16", num_classes=7).preprocessing == CAFFE


def test_new_parameters() -> None:
    network = build_classifier("resnet18", num_classes=5)
    assert [parameter.shape for parameter in network.new_parameters()] == [(5, 512, 1, 1)]
    scratch = build_classifier("tiny", num_classes=5)
    assert len(list(scratch.new_parameters())) == len(list(scratch.parameters()))


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_what_is_not_frozen_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(name, num_classes=3).train()
    before = {key: value.clone() for key, value in network.named_buffers()}
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key
    assert network.fc8.weight.grad.abs().sum() > 0
    assert all(torch.equal(value, before[key]) for key, value in network.named_buffers())
    assert not any(module.training for module in network.modules() if isinstance(module, nn.BatchNorm2d))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "tiny"])
def test_bfloat16_autocast_and_channels_last(name: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(name, num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = network.cam(x)
        network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(network.cam(x), expected, rtol=1e-3, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = network.cam(x)
    assert half.dtype == torch.bfloat16
    assert (half.float() - expected).abs().mean() < 0.05 * expected.abs().mean()


def test_tiny_learns_from_scratch() -> None:
    torch.manual_seed(0)
    network = build_classifier("tiny", num_classes=2)
    labels = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).repeat(4, 1)
    x = torch.randn(8, 3, 32, 32) * 0.1
    x[::2] += torch.linspace(0, 20, 32).sin()
    x[1::2] += torch.linspace(0, 20, 32).sin()[:, None]
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    for _ in range(40):
        loss = nn.functional.multilabel_soft_margin_loss(network(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_refuses_no_classes() -> None:
    with pytest.raises(ValueError, match="at least one object class"):
        build_classifier("tiny", num_classes=0)


@pytest.mark.shared_data
def test_resnet38_equals_psas(golden: Path, golden_checkpoint: Callable[[str], Path]) -> None:
    network = build_classifier("resnet38", num_classes=20).eval()
    assert load_weights(network, golden_checkpoint("resnet38_cls"), require_head=True, read=read_bytes) == ()
    numbers = np.load(golden / "resnet38_cls.npz")
    x = torch.from_numpy(numbers["x"])
    with torch.no_grad():
        np.testing.assert_allclose(network.cam(x).numpy(), numbers["cam"], rtol=1e-4, atol=2e-5)
        np.testing.assert_allclose(network(x).numpy(), numbers["logit"], rtol=1e-4, atol=2e-5)
