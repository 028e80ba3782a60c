import pytest
import torch
from torch import nn

from raypipe.networks.backbones import build_backbone
from raypipe.networks.heads import HEADS, build_head


@pytest.mark.parametrize("name", HEADS)
def test_scores_on_the_grid_of_the_maps(name: str) -> None:
    backbone = build_backbone("tiny")
    head = build_head(name, backbone, num_labels=4).eval()
    low, high = torch.randn(2, 32, 5, 7), torch.randn(2, 128, 5, 7)
    assert head(low, high).shape == (2, 4, 5, 7)


@pytest.mark.parametrize("name", HEADS)
def test_an_image_s_scores_don_t_depend_on_its_batch(name: str) -> None:
    head = build_head(name, build_backbone("tiny"), num_labels=4)
    for module in head.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    low, high = torch.randn(3, 32, 5, 7), torch.randn(3, 128, 5, 7)
    torch.testing.assert_close(head(low, high)[:1], head(low[:1], high[:1]))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in head.modules())


@pytest.mark.parametrize("name", ["deeplabv3plus", "lraspp"])
def test_decoders_look_at_the_shallow_map(name: str) -> None:
    head = build_head(name, build_backbone("tiny"), num_labels=4).eval()
    high = torch.randn(1, 128, 5, 7)
    assert not torch.equal(head(torch.zeros(1, 32, 5, 7), high), head(torch.ones(1, 32, 5, 7), high))


def test_vgg16_has_the_field_of_view_within() -> None:
    head = build_head("largefov", build_backbone("vgg16", fc6_dilation=12), num_labels=4)
    assert [type(module) for module in head.modules()][1:] == [nn.Conv2d]


def test_unknown_heads_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no head 'deeplab'; choose one of largefov, deeplabv3"):
        build_head("deeplab", build_backbone("tiny"), num_labels=4)
