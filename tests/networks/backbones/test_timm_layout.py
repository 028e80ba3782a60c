from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn

from raypipe.networks.backbones import build_backbone
from raypipe.networks.backbones.timm_layout import find_layout


@pytest.mark.parametrize(
    ("architecture", "output_stride", "strides", "centres"),
    [
        # Padded on both sides: at 8i, whatever the stride.
        ("regnetx_002", 8, (4, 8, 8, 8), (0.0, 0.0, 0.0, 0.0)),
        ("resnet18", 16, (4, 8, 16, 16), (0.0, 0.0, 0.0, 0.0)),
        # TensorFlow's padding at the right and bottom: 1 + 2 + 4 at stride 8.
        ("tf_efficientnet_lite0", 8, (4, 8, 8, 8), (3.0, 7.0, 7.0, 7.0)),
        # Patches of 4, then of 2; the dilated ones read i and i + 1, and i - 1 and i + 1.
        ("convnext_atto", 8, (4, 8, 8, 8), (1.5, 3.5, 7.5, 7.5)),
        ("deit_tiny_patch16_224", 8, (16, 16, 16, 16), (7.5, 7.5, 7.5, 7.5)),
        # Shortcuts that average 2 x 2 cells beside 3 x 3 convolutions: between the two.
        ("resnet18d", 8, (4, 8, 8, 8), (0.0, 1.5, 5.5, 9.0)),
        # Not dilated: timm can't.
        ("ghostnet_050", 8, (4, 8, 16, 32), (0.0, 0.0, 0.0, 0.0)),
    ],
)
def test_convention_where_cells_look(
    architecture: str, output_stride: int, strides: tuple[int, ...], centres: tuple[float, ...]
) -> None:
    layout = find_layout(architecture, output_stride)
    assert layout.strides == strides
    assert layout.centres == centres


@pytest.mark.parametrize("architecture", ["test_resnet", "tf_efficientnet_lite0", "convnext_atto"])
def test_convention_placed_cells_look_at_their_own_centres(architecture: str) -> None:
    """With the whole backbone and weights as they are drawn: the gradient of a cell's squared score."""
    torch.manual_seed(0)
    backbone = build_backbone(f"timm/{architecture}").eval()
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data.copy_(module.weight.mean(dim=(2, 3), keepdim=True).expand_as(module.weight))
    x = torch.ones(1, 3, 256, 32, requires_grad=True)
    maps = backbone(x)
    for depth, features in maps.items():
        (gradient,) = torch.autograd.grad(features[0, :, 16].square().sum(), x, retain_graph=True)
        influence = gradient[0].double().abs().sum(dim=(0, 2))
        below = influence.cumsum(dim=0) / influence.sum()
        middle = (below < 0.5).sum().item()
        assert abs(middle - (8 * 16 + 3.5)) <= 2.5, depth  # maxima look at one of equal pixels


def test_what_follows_the_last_block_is_read_and_the_head_is_not() -> None:
    layout = find_layout("tf_efficientnet_lite0", 8)
    assert layout.channels[-1] == 1280
    assert layout.heads == ("classifier",)
    assert find_layout("mobilenetv3_small_050", 8).heads == ("classifier", "conv_head")


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_a_layout_is_found_where_gradients_are_off(
    without_gradients: Callable[[], AbstractContextManager[None]],
) -> None:
    architecture = "mobilenetv3_small_050"
    expected = find_layout(architecture, 8)
    find_layout.cache_clear()
    with without_gradients():
        assert find_layout(architecture, 8) == expected
