from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raypipe.networks import build_affinity_net, load_weights
from raypipe.networks.backbones import BACKBONES
from raypipe.storage import read_bytes


@pytest.mark.parametrize("name", BACKBONES)
def test_448_features_at_stride_8(name: str) -> None:
    with torch.device("meta"):
        features = build_affinity_net(name)(torch.empty(2, 3, 41, 24))
    assert features.shape == (2, 448, 6, 3)


@pytest.mark.parametrize("size", [(1, 1), (7, 9), (17, 24)])
def test_any_size(size: tuple[int, int]) -> None:
    with torch.no_grad():
        features = build_affinity_net("tiny").eval()(torch.randn(1, 3, *size))
    assert features.shape[-2:] == (-(-size[0] // 8), -(-size[1] // 8))
    assert features.isfinite().all()


def test_head_by_hand() -> None:
    torch.manual_seed(0)
    network = build_affinity_net("tiny").eval()
    x = torch.randn(1, 3, 24, 32)
    with torch.no_grad():
        maps = network.backbone(x)
        parts = [
            F.elu(norm(conv(maps[depth])))
            for norm, conv, depth in (
                (network.gn8_3, network.f8_3, "stride4"),
                (network.gn8_4, network.f8_4, "middle"),
                (network.gn8_5, network.f8_5, "last"),
            )
        ]
        torch.testing.assert_close(network(x), F.elu(network.f9(torch.cat(parts, dim=1))))
    assert [part.shape[1] for part in parts] == [64, 128, 256]


def test_only_resnet38_needs_no_group_norm() -> None:
    with torch.device("meta"):
        assert isinstance(build_affinity_net("resnet38").gn8_3, nn.Identity)
        groups = [build_affinity_net("resnet50").get_submodule(name).num_groups for name in ("gn8_3", "gn8_4", "gn8_5")]
    assert groups == [8, 16, 32]


def test_initial_affinities_are_neither_zero_nor_one() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        features = build_affinity_net("mobilenet_v2").eval()(torch.randn(1, 3, 96, 96))
    affinity = torch.exp(-(features[..., 1:] - features[..., :-1]).abs().mean(1))
    assert 0.02 < affinity.mean() < 0.9


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "tiny"])
def test_gradients_reach_what_is_not_frozen_and_nothing_else(name: str) -> None:
    torch.manual_seed(0)
    network = build_affinity_net(name).train()
    network(torch.randn(2, 3, 32, 32)).square().sum().backward()
    for key, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, key


def test_new_parameters_are_the_heads() -> None:
    network = build_affinity_net("resnet18")
    new = {id(parameter) for parameter in network.new_parameters()}
    names = {key.split(".")[0] for key, parameter in network.named_parameters() if id(parameter) in new}
    assert names == {"f8_3", "f8_4", "f8_5", "gn8_3", "gn8_4", "gn8_5", "f9"}


@pytest.mark.shared_data
def test_vgg16_equals_psas(golden: Path, golden_checkpoint: Callable[[str], Path]) -> None:
    network = build_affinity_net("vgg16").eval()
    assert load_weights(network, golden_checkpoint("vgg16_aff"), require_head=True, read=read_bytes) == ()
    numbers = np.load(golden / "vgg16_aff.npz")
    with torch.no_grad():
        features = network(torch.from_numpy(numbers["x"])).numpy()
    np.testing.assert_allclose(features, numbers["f"], rtol=1e-4, atol=1e-5)
