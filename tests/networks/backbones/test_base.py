import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from raypipe.networks.backbones.base import FrozenBatchNorm2d, dilate, freeze, halve
from raypipe.networks.backbones.torchvision import TorchvisionResNet


def test_frozen_batch_norm_stays_frozen_in_training() -> None:
    norm = FrozenBatchNorm2d(2)
    norm.running_mean.copy_(torch.tensor([1.0, 2.0]))
    model = nn.Sequential(norm).train()
    x = torch.randn(4, 2, 3, 3)
    expected = (x - torch.tensor([1.0, 2.0]).reshape(1, 2, 1, 1)) / (1 + norm.eps) ** 0.5
    torch.testing.assert_close(model(x), expected)
    assert not norm.training
    assert norm.running_mean.tolist() == [1.0, 2.0]
    assert not any(parameter.requires_grad for parameter in model.parameters())


def test_freeze() -> None:
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    freeze(first)
    assert [parameter.requires_grad for parameter in (*first.parameters(), *second.parameters())] == [False] * 2 + [
        True
    ] * 2


@pytest.mark.parametrize(("output_stride", "dilated"), [(8, [False, True, True]), (16, [False, False, True])])
def test_dilate_equals_torchvisions_own_where_it_has_one(output_stride: int, dilated: list[bool]) -> None:
    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(replace_stride_with_dilation=dilated).eval()
    ours = TorchvisionResNet("resnet50", output_stride=output_stride).eval()
    ours.load_state_dict({key: value for key, value in theirs.state_dict().items() if not key.startswith("fc.")})
    x = torch.randn(1, 3, 48, 64)
    half = output_stride // 2
    padded = F.pad(x, (half, 0, half, 0))  # by half a cell, and the first row and column of cells is dropped
    body = nn.Sequential(*list(theirs.children())[:-2])
    with torch.no_grad():
        torch.testing.assert_close(ours(x)["layer4"], body(padded)[..., 1:, 1:])


def test_dilated_network_is_the_strided_one_on_every_second_cell() -> None:
    torch.manual_seed(0)
    strided = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
    )
    dilated = nn.Sequential(
        nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 1, 1)
    )
    dilated.load_state_dict(strided.state_dict())
    dilate(dilated, input_stride=8, output_stride=8)
    x = torch.randn(1, 2, 9, 11)
    torch.testing.assert_close(dilated(x)[..., ::2, ::2], strided(x))


def test_halve_by_hand() -> None:
    x = torch.tensor([[[[1.0, 2.0, 3.0, 4.0]]]])
    assert halve(x, times=1).tolist() == [[[[1.5, 3.0]]]]
    assert halve(x, times=0) is x
