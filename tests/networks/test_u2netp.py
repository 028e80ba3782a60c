import pytest
import torch

from raypipe.networks.u2netp import ResidualU, U2NetP


def test_has_the_published_number_of_parameters_and_names() -> None:
    network = U2NetP()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_131_181
    state = network.state_dict()
    assert state["stage1.rebnconvin.conv_s1.weight"].shape == (64, 3, 3, 3)
    assert state["stage1.rebnconv7.bn_s1.running_mean"].shape == (16,)
    assert state["stage1d.rebnconv6d.conv_s1.weight"].shape == (16, 32, 3, 3)
    assert state["stage6.rebnconv1d.conv_s1.bias"].shape == (64,)
    assert state["side6.weight"].shape == (1, 64, 3, 3)
    assert state["outconv.weight"].shape == (1, 6, 1, 1)


def test_saliency_of_any_size_goes_from_0_to_1() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        saliency = U2NetP().eval()(torch.randn(2, 3, 65, 83))
    assert saliency.shape == (2, 1, 65, 83)
    assert saliency.amin(dim=(1, 2, 3)).tolist() == pytest.approx([0, 0])
    assert saliency.amax(dim=(1, 2, 3)).tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize(("depth", "dilated"), [(7, False), (4, False), (4, True)])
def test_a_block_is_residual(depth: int, *, dilated: bool) -> None:
    """With its last convolution silent, a block is its first one."""
    block = ResidualU(depth, 3, dilated=dilated).eval()
    torch.nn.init.zeros_(block.get_submodule("rebnconv1d").bn_s1.weight)
    x = torch.randn(1, 3, 37, 21)
    with torch.no_grad():
        torch.testing.assert_close(block(x), block.rebnconvin(x))
