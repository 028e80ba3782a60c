import pytest
import torch
from saliency_weights import csnet_state

from raypipe.networks.csnet import CSNet
from raypipe.networks.saliency_networks import load_saliency_network


def test_weights_come_into_the_network() -> None:
    state = csnet_state() | {"cls_layer.bias": torch.tensor([7.0])}
    network = load_saliency_network("csnet", state, source="file")
    assert isinstance(network, CSNet)
    assert network.cls_layer.bias.item() == 7
    assert not network.training


def test_weights_of_another_network_are_refused() -> None:
    with pytest.raises(ValueError, match="file doesn't fit csnet: no stage0"):
        load_saliency_network("csnet", {"conv.weight": torch.zeros(1)}, source="file")
    with pytest.raises(ValueError, match="size mismatch"):
        load_saliency_network("csnet", csnet_state() | {"cls_layer.weight": torch.zeros(1, 9, 1, 1)}, source="file")
    incomplete = csnet_state()
    del incomplete["stage1.0.conv3x3_1.convs.0.weight"]
    with pytest.raises(ValueError, match="1 weights are missing"):
        load_saliency_network("csnet", incomplete, source="file")


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ValueError, match="choose one of csnet"):
        load_saliency_network("csnett", {}, source="file")
