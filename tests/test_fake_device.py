"""The device that the tests of stages and training steps take for a card's."""

import numpy as np
import pytest
import torch
from fake_device import DEVICE, DeviceError, DeviceTensor, fake_device
from torch import nn


def test_values_are_those_of_the_cpu() -> None:
    x = torch.randn(2, 3, 5, 4)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.ELU())
    with fake_device():
        moved = network.to(DEVICE).to(memory_format=torch.channels_last)
        assert all(isinstance(parameter, DeviceTensor) for parameter in moved.parameters())
        y = moved(x.to(DEVICE).contiguous(memory_format=torch.channels_last))
        assert (y.device, y.shape) == (DEVICE, (2, 4, 3, 2))
        assert y.is_contiguous(memory_format=torch.channels_last)
        again = moved.to("cpu")(x)
        torch.testing.assert_close(y.cpu(), again, rtol=1e-6, atol=1e-6)


def test_gradients_and_steps_are_those_of_the_cpu() -> None:
    x, y = torch.randn(6, 3), torch.randn(6, 2)
    weights = []
    for device in ("cpu", DEVICE.type):
        torch.manual_seed(0)
        network = nn.Linear(3, 2)
        with fake_device():
            network.to(device)
            optimizer = torch.optim.AdamW(network.parameters(), lr=0.1)
            for _ in range(3):
                optimizer.zero_grad()
                (network(x.to(device)) - y.to(device)).square().mean().backward()
                optimizer.step()
            weights.append(network.weight.detach().cpu())
    torch.testing.assert_close(*weights, rtol=0, atol=0)


def test_views_share_what_they_show() -> None:
    with fake_device():
        x = torch.zeros(3, 4, device=DEVICE)
        x[1, 1:] += 2
        x[[0, 2], 0] = torch.ones(2, device=DEVICE)
        torch.sum(torch.ones(2, 4, device=DEVICE), dim=0, out=x[2])
        assert x.tolist() == [[1, 0, 0, 0], [0, 2, 2, 2], [2, 2, 2, 2]]


def test_numbers_become_tensors_of_the_device() -> None:
    with fake_device():
        x = torch.tensor([4.0, 5.0, 6.0], device=DEVICE)
        assert x[[2, 0]].tolist() == [6, 4]
        assert x[np.array([1])].tolist() == [5]
        assert (x * torch.tensor(2.0)).tolist() == [8, 10, 12], "a number of the CPU may take part"


MIXED = {
    "sum": lambda ours, cpu: ours + cpu,
    "product": lambda ours, cpu: cpu @ ours,
    "list": lambda ours, cpu: torch.cat([ours, cpu]),
    "list of numbers": lambda ours, cpu: torch.stack([ours.sum(), cpu.sum()]),
    "in place": lambda ours, cpu: cpu.add_(ours),
    "in place of a number": lambda ours, cpu: cpu.sum().add_(ours.sum()),
    "index": lambda ours, cpu: cpu[ours > 0],
    "value": lambda ours, cpu: ours.index_put_((torch.tensor([0]).to(DEVICE),), cpu[:1]),
    "mask": lambda ours, cpu: torch.where(cpu > 0, ours, 0),
}


@pytest.mark.parametrize("mix", MIXED.values(), ids=MIXED)
def test_exception_two_devices(mix: object) -> None:
    with fake_device(), pytest.raises(DeviceError):
        mix(torch.ones(2, 2, device=DEVICE), torch.ones(2, 2))  # type: ignore[operator]


def test_exception_an_array_of_a_tensor_of_the_device() -> None:
    with fake_device():
        x = torch.ones(2, device=DEVICE)
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()
        with pytest.raises(TypeError, match="numpy"):
            np.asarray(x)


def test_exception_a_tensor_of_the_device_outside() -> None:
    with fake_device():
        x = torch.ones(2, device=DEVICE)
    with pytest.raises(RuntimeError, match="outside"):
        x + 1


WAITS = {
    "a copy to the CPU": lambda x: x.cpu(),
    "a copy to the device": lambda _: torch.ones(2).to(DEVICE),
    "_local_scalar_dense": lambda x: x.sum().item(),
    "nonzero": lambda x: x.nonzero(),
    "masked_select": lambda x: x.masked_select(x > 0),
    "a mask as index": lambda x: x[x > 0],
    "equal": lambda x: torch.equal(x, x),
    "_unique2": lambda x: x.unique(),
}


@pytest.mark.parametrize(("wait", "call"), WAITS.items())
def test_waits_are_counted(wait: str, call: object) -> None:
    with fake_device() as waits:
        x = torch.ones(3, device=DEVICE)
        call(x)  # type: ignore[operator]
    assert waits == {wait: 1}


def test_what_needs_no_wait_is_not_counted() -> None:
    with fake_device() as waits:
        x = torch.ones(3).to(DEVICE, non_blocking=True)
        x[x > 0] = 0
        x[:1] = x[2:]
        torch.ones(2, device=DEVICE).softmax(0).clamp(min=1).sum()
    assert not waits
