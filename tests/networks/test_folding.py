import torch
from torch import nn

from raypipe.networks import build_classifier
from raypipe.networks.backbones.base import FrozenBatchNorm2d
from raypipe.networks.folding import fold_batchnorm


def test_folded_network_gives_the_same_maps() -> None:
    torch.manual_seed(0)
    network = build_classifier("mobilenet_v2", num_classes=3).eval()
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    x = torch.randn(1, 3, 64, 48)
    with torch.inference_mode():
        before = network.cam(x)
        fold_batchnorm(network)
        after = network.cam(x)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4 * before.max().item())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())
