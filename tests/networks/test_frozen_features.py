import pytest
import torch
import torch.nn.functional as F

from raypipe.networks import build_frozen_features
from raypipe.networks.backbones import BACKBONES
from raypipe.ops.cosine_affinity import cosine_affinity


@pytest.mark.parametrize("name", BACKBONES)
def test_features_of_three_depths_at_stride_8(name: str) -> None:
    with torch.device("meta"):
        network = build_frozen_features(name)
        features = network(torch.empty(2, 3, 41, 24))
    channels = [network.backbone.channels[depth] for depth in network.backbone.affinity_depths]
    assert features.shape == (2, sum(channels), 6, 3)


def test_affinities_are_the_mean_of_the_depths_cosines() -> None:
    torch.manual_seed(0)
    network = build_frozen_features("tiny").eval()
    x = torch.randn(1, 3, 40, 56)
    maps = network.backbone(x)
    of_depths = torch.stack([cosine_affinity(maps[depth]) for depth in network.backbone.affinity_depths])
    affinity = network.pair(network(x), radius=5)
    torch.testing.assert_close(affinity, of_depths.mean(0), rtol=1e-4, atol=1e-5)
    assert (of_depths[0] - of_depths[2]).abs().max() > 0.01, "the depths see different things"


def test_each_depth_counts_alike_whatever_its_scale() -> None:
    torch.manual_seed(0)
    network = build_frozen_features("tiny").eval()
    found = network(torch.randn(1, 3, 24, 32))
    sizes = [network.backbone.channels[depth] for depth in network.backbone.affinity_depths]
    for part in torch.split(found, sizes, dim=1):
        lengths = part.norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_nothing_is_trained() -> None:
    network = build_frozen_features("tiny")
    assert not [name for name, weight in network.named_parameters() if weight.requires_grad]
    features = network(torch.randn(1, 3, 16, 16))
    assert not features.requires_grad


def test_half_precision_of_the_backbone_gives_float32() -> None:
    torch.manual_seed(0)
    network = build_frozen_features("tiny").eval()
    x = torch.randn(1, 3, 40, 56)
    with torch.autocast("cpu", torch.bfloat16):
        half = network(x)
    assert half.dtype == torch.float32
    assert F.cosine_similarity(half, network(x), dim=1).min() > 0.99


def test_unknown_backbones_are_refused() -> None:
    with pytest.raises(ValueError, match="no backbone is called 'tinny'"):
        build_frozen_features("tinny")
