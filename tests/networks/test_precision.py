"""Weights that are cast once: which, and that no output changes."""

from typing import Any

import pytest
import torch
from torch import nn

from raypipe.networks import (
    AnyClassifier,
    build_affinity_net,
    build_classifier,
    build_saliency_classifier,
    build_segmenter,
)
from raypipe.networks.backbones import BACKBONES
from raypipe.networks.folding import fold_batchnorm
from raypipe.networks.heads import HEADS
from raypipe.networks.network import Network
from raypipe.networks.precision import autocasting, cast_weights

CPU = torch.device("cpu")


def float32_parts(network: Network) -> list[nn.Module]:
    return [network.backbone.get_submodule(name) for name in network.backbone.float32_weights]


TIMM = (
    "timm/test_efficientnet",
    "timm/convnext_atto",
    "timm/test_nfnet",
    "timm/test_vit",
    "timm/vit_small_patch16_dinov3",
)


@pytest.mark.parametrize("backbone", [*sorted(set(BACKBONES) - {"resnet18", "resnet101"}), *TIMM])  # as resnet50
def test_outputs_stay_the_same_bit_for_bit(backbone: str) -> None:
    torch.manual_seed(0)
    check_outputs(build_affinity_net(backbone))
    for build in (build_classifier, build_saliency_classifier):
        check_outputs(build(backbone, num_classes=3))


@pytest.mark.parametrize("head", HEADS)
def test_outputs_of_segmenters_stay_the_same_bit_for_bit(head: str) -> None:
    torch.manual_seed(0)
    check_outputs(build_segmenter("mobilenet_v2", head=head, num_classes=3))


def check_outputs(network: Any) -> None:
    network.eval()
    fold_batchnorm(network)
    compute = network.cam if isinstance(network, AnyClassifier) else network
    x = torch.randn(1, 3, 48, 40)
    with torch.inference_mode():
        before = autocasting(compute, CPU, "bf16")(x)
        cast_weights(network, CPU, "bf16", kept=float32_parts(network))
        after = autocasting(compute, CPU, "bf16")(x)
    assert before.isfinite().all()
    assert torch.equal(before, after)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_convolutions_are_cast_but_for_those_that_stay_float32(precision: Any, dtype: torch.dtype) -> None:
    network = build_classifier("mobilenet_v2", num_classes=3).eval()
    cast_weights(network, CPU, precision, kept=float32_parts(network))
    features = network.backbone.get_submodule("features")
    assert isinstance(features, nn.Sequential)
    of_block = [
        {module.weight.dtype for module in block.modules() if isinstance(module, nn.Conv2d)} for block in features
    ]
    assert of_block[:4] == [{torch.float32}] * 4
    assert of_block[4:] == [{dtype}] * (len(of_block) - 4)
    assert network.fc8.weight.dtype == dtype


def test_maps_of_a_saliency_classifier_are_float32() -> None:
    network = build_saliency_classifier("tiny", num_classes=2).eval()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network.cam(torch.randn(1, 3, 32, 32)).dtype == torch.float32
