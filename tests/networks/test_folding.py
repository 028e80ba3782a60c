import pytest
import torch
import torch.nn.functional as F
from benchmark_files import load_benchmark
from torch import Tensor, nn

from raypipe.networks import build_affinity_net, build_classifier
from raypipe.networks.backbones import BACKBONES
from raypipe.networks.backbones.base import FrozenBatchNorm2d
from raypipe.networks.folding import Affine, fold_batchnorm
from raypipe.ops.cam import normalize_cams, stack_background

kernels = load_benchmark("card/kernels.py")


def with_statistics(network: nn.Module) -> nn.Module:
    """As after a training: no BatchNorm is the identity."""
    for module in network.modules():
        if isinstance(module, FrozenBatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
    return network.eval()


TIMM = ("timm/test_resnet", "timm/test_efficientnet", "timm/resnetv2_50", "timm/densenet121", "timm/test_nfnet")


@pytest.mark.parametrize("backbone", [*BACKBONES, *TIMM])
def test_a_folded_network_gives_the_same_features(backbone: str) -> None:
    """All depths, as a BatchNorm may sit at a branch."""
    torch.manual_seed(0)
    network = with_statistics(build_classifier(backbone, num_classes=3).backbone)
    x = torch.randn(1, 3, 48, 40)
    with torch.inference_mode():
        before: dict[str, Tensor] = network(x)
        fold_batchnorm(network)
        after: dict[str, Tensor] = network(x)
    for depth, features in before.items():
        torch.testing.assert_close(after[depth], features, rtol=1e-3, atol=1e-4 * features.abs().max().item())
    assert not any(isinstance(module, FrozenBatchNorm2d) for module in network.modules())


@pytest.mark.parametrize(
    ("backbone", "left"),
    [
        *(("resnet18", 0), ("resnet50", 0), ("resnet101", 0), ("mobilenet_v2", 0), ("resnet38", 17), ("tiny", 0)),
        # Those of EfficientNet contain the activation; the others normalise before their convolutions.
        *(("timm/test_efficientnet", 0), ("timm/resnetv2_50", 17), ("timm/densenet121", 62)),
    ],
)
def test_no_batchnorm_behind_a_convolution_is_left(backbone: str, left: int) -> None:
    """ResNet38 normalises before its convolutions: 17 of its 37 follow an addition."""
    network = build_classifier(backbone, num_classes=3).eval()
    fold_batchnorm(network)
    assert sum(isinstance(module, Affine) for module in network.modules()) == left


@pytest.mark.parametrize(
    ("backbone", "most"), [("resnet50", 130), ("resnet101", 250), ("resnet38", 130), ("mobilenet_v2", 110)]
)
def test_a_pass_takes_few_kernels(backbone: str, most: int) -> None:
    """ResNet50 took 417 with 4 of its 53 BatchNorms folded: a card would have waited for its launches."""
    network = build_classifier(backbone, num_classes=20).eval()
    fold_batchnorm(network)
    with torch.inference_mode(), kernels.Counted() as counted:
        network.cam(torch.zeros(2, 3, 64, 64))
    number = counted.kernels.total()
    print(f"{backbone}: {number} kernels")
    assert number <= most


def test_an_affinity_net_folds_its_backbone() -> None:
    with torch.device("meta"):
        network = build_affinity_net("resnet50").eval()
    fold_batchnorm(network)
    assert not any(isinstance(module, FrozenBatchNorm2d | Affine) for module in network.modules())


@pytest.mark.parametrize("backbone", ["resnet50", "resnet38", "vgg16"])
def test_folding_leaves_the_labels_of_the_pixels(backbone: str) -> None:
    torch.manual_seed(0)
    network = build_classifier(backbone, num_classes=3)
    with_statistics(network)
    coarse = torch.randn(2, 3, 8, 12)
    images = F.interpolate(coarse, size=(96, 144), mode="bicubic")

    def labels() -> Tensor:
        cams = F.interpolate(network.cam(images), scale_factor=8, mode="bilinear")
        return torch.stack([stack_background(normalize_cams(cam), alpha=2).argmax(dim=0) for cam in cams])

    with torch.inference_mode():
        before = labels()
        fold_batchnorm(network)
        after = labels()
    assert len(before.unique()) > 1
    share = (before == after).double().mean().item()
    print(f"{backbone}: {100 * share:.4f} % of {before.numel()} pixels are equal")
    assert share >= 0.999
