from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from saliency_weights import csnet_state

from raypipe.networks.csnet import CSNet, OctConv, load_csnet
from raypipe.networks.weights import read_state_dict
from raypipe.storage import read_bytes


class TestOctConv:
    def test_hand_worked(self) -> None:
        """Two resolutions of one channel, all weights 1: y_fine = x + up(z), y_coarse = max(x) + z."""
        conv = OctConv([1, 1], [1, 1], kernel=1).eval()
        torch.nn.init.ones_(conv.conv.weight)
        fine = torch.tensor([[1.0, 2.0], [3.0, 4.0]]).reshape(1, 1, 2, 2)
        outs = conv([fine, torch.full((1, 1, 1, 1), 10.0)])
        torch.testing.assert_close(outs[0], fine + 10, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(outs[1], torch.full((1, 1, 1, 1), 14.0), rtol=1e-4, atol=1e-4)

    def test_stride_2_averages_first(self) -> None:
        conv = OctConv([1], [1], kernel=1, stride=2).eval()
        torch.nn.init.ones_(conv.conv.weight)
        (out,) = conv([torch.tensor([[1.0, 2.0], [3.0, 6.0]]).reshape(1, 1, 2, 2)])
        assert out.item() == pytest.approx(3, rel=1e-4)

    def test_one_resolution_is_a_plain_convolution(self) -> None:
        torch.manual_seed(0)
        conv = OctConv([3], [4], kernel=3).eval()
        x = torch.randn(2, 3, 6, 6)
        expected = F.prelu(F.conv2d(x, conv.conv.weight, padding=1), torch.full((4,), 0.25))
        torch.testing.assert_close(conv([x])[0], expected, rtol=1e-4, atol=1e-5)


def test_widths_come_from_the_weights() -> None:
    state = csnet_state()
    network = CSNet(state).eval()
    missing, unexpected = network.load_state_dict(state, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in missing)
    assert not unexpected
    with torch.no_grad():
        saliency = network(torch.randn(2, 3, 32, 48))
    assert saliency.shape == (2, 1, 32, 48)
    assert saliency.min() >= 0
    assert saliency.max() <= 1


def test_sides_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 16"):
        CSNet(csnet_state())(torch.zeros(1, 3, 40, 48))


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="aren't the weights of a CSNet"):
        CSNet({"conv.weight": torch.zeros(3, 3, 1, 1)})


def test_weights_come_into_the_network() -> None:
    network = load_csnet(csnet_state() | {"cls_layer.bias": torch.tensor([7.0])}, source="file")
    assert network.cls_layer.bias is not None
    assert network.cls_layer.bias.item() == 7
    assert not network.training


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="file doesn't fit csnet: no stage0"):
        load_csnet({"conv.weight": torch.zeros(1)}, source="file")
    with pytest.raises(ValueError, match="size mismatch"):
        load_csnet(csnet_state() | {"cls_layer.weight": torch.zeros(1, 9, 1, 1)}, source="file")
    incomplete = csnet_state()
    del incomplete["stage1.0.conv3x3_1.convs.0.weight"]
    with pytest.raises(ValueError, match="1 weights are missing"):
        load_csnet(incomplete, source="file")


@pytest.mark.shared_data
def test_the_published_weights_fit_their_own_statistics(weights_dir: Path, voc_root: Path) -> None:
    """What each normalisation sees of photographs has the mean and variance that it saw in training: told apart so."""
    from PIL import Image
    from torchvision.transforms.functional import normalize, to_tensor

    state = read_state_dict(weights_dir / "csnet-L-x2.pth.tar", read=read_bytes)
    network = CSNet(state).eval()
    network.load_state_dict(state, strict=False)
    seen: dict[torch.nn.BatchNorm2d, list[torch.Tensor]] = {}
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.register_forward_pre_hook(lambda norm, given: seen.setdefault(norm, []).append(given[0]))
    for path in sorted((voc_root / "JPEGImages").iterdir())[:40:8]:
        pixels = to_tensor(Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR))
        with torch.no_grad():
            network(normalize(pixels, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])[None])
    ratios = []
    for norm, maps in seen.items():
        alive = norm.running_var > 1e-6  # type: ignore[operator]
        variance = torch.cat(maps).var(dim=(0, 2, 3))
        ratios.append((variance / norm.running_var)[alive].log().median().abs())  # type: ignore[operator]
    assert torch.stack(ratios).nanmean() < 0.4
