"""Quick gradients of depthwise convolutions equal torch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from raypipe.networks.depthwise import QuickDepthwise, quick_depthwise

CHANNELS = 6


def _gradients(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, *geometry: object
) -> list[torch.Tensor]:
    y = F.conv2d(x, weight, bias, *geometry, CHANNELS)
    wanted = [each for each in (x, weight, bias) if each is not None]
    return [y, *torch.autograd.grad((y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum(), wanted)]


@pytest.mark.parametrize(
    ("size", "stride", "padding", "dilation"),
    [
        (5, 1, 2, 1),
        (5, 1, 4, 2),
        (3, 1, 2, 2),
        (5, 2, 0, 1),
        (5, 2, 2, 1),
        (3, 2, 0, 1),
        (3, 2, 1, 2),
        (7, 3, 3, 1),
        ((3, 5), (2, 1), (1, 0), (1, 2)),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_gradients_are_those_of_torch(
    size: int | tuple[int, int], stride: object, padding: object, dilation: object, *, with_bias: bool
) -> None:
    torch.manual_seed(0)
    taps = size if isinstance(size, tuple) else (size, size)
    x = torch.randn(3, CHANNELS, 17, 20, dtype=torch.double, requires_grad=True)
    weight = torch.randn(CHANNELS, 1, *taps, dtype=torch.double, requires_grad=True)
    bias = torch.randn(CHANNELS, dtype=torch.double, requires_grad=True) if with_bias else None
    expected = _gradients(x, weight, bias, stride, padding, dilation)
    with QuickDepthwise():
        found = _gradients(x, weight, bias, stride, padding, dilation)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_images_are_summed_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    x, weight = torch.randn(5, CHANNELS, 9, 9), torch.randn(CHANNELS, 1, 5, 5)
    x.requires_grad_()
    weight.requires_grad_()
    expected = _gradients(x, weight, None, 1, 2, 1)
    monkeypatch.setattr("raypipe.networks.depthwise.CACHED", 2 * CHANNELS * 13 * 13)
    with QuickDepthwise():
        found = _gradients(x, weight, None, 1, 2, 1)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("conv", "is_ours"),
    [
        (nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS), True),
        (nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, groups=CHANNELS), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, groups=CHANNELS), True),
        (nn.Conv2d(CHANNELS, CHANNELS, 5, padding="same", groups=CHANNELS), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 4, groups=CHANNELS), False),
        (nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2), False),
        (nn.Conv2d(CHANNELS, 2 * CHANNELS, 5, padding=2, groups=CHANNELS), False),
    ],
)
def test_takes_the_place_of_slow_ones_alone(conv: nn.Conv2d, *, is_ours: bool) -> None:
    with QuickDepthwise():
        trained = conv(torch.randn(1, CHANNELS, 9, 9))
        with torch.no_grad():
            inferred = conv(torch.randn(1, CHANNELS, 9, 9))
    functions, names = [trained.grad_fn], set()
    while functions:
        function = functions.pop()
        names.add(type(function).__name__)
        functions += [each for each, _ in function.next_functions if each is not None]
    assert ("_DepthwiseBackward" in names) is is_ours
    assert inferred.grad_fn is None


def test_autocast_casts_as_it_does_elsewhere() -> None:
    conv = nn.Conv2d(CHANNELS, CHANNELS, 5, padding=2, groups=CHANNELS)
    x = torch.randn(2, CHANNELS, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = conv(x)
        with QuickDepthwise():
            found = conv(x)
    assert found.dtype is expected.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.02, atol=0.02)
    (expected_gradient,) = torch.autograd.grad(expected.float().square().sum(), conv.weight)
    (gradient,) = torch.autograd.grad(found.float().square().sum(), conv.weight)
    assert gradient.dtype is torch.float32
    torch.testing.assert_close(gradient, expected_gradient, rtol=0.02, atol=0.5)


def test_accelerators_run_nothing_of_it() -> None:
    assert isinstance(quick_depthwise(torch.device("cpu")), QuickDepthwise)
    assert not isinstance(quick_depthwise(torch.device("cuda")), QuickDepthwise)
