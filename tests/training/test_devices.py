"""Every training step on a device that isn't the CPU: nothing is mixed or waited for, the weights are the CPU's."""

from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from fake_device import DEVICE, fake_device
from torch import Tensor

from raypipe.config.root import RunConfig
from raypipe.config.training import NetworkConfig, Optimizer
from raypipe.ops.jitter import draw_colour_change
from raypipe.training.batch import Batch
from raypipe.training.saliency_task import SaliencyTask
from raypipe.training.state import TrainingState
from raypipe.training.step import distributed_loss, loss_terms
from raypipe.training.tasks import AffinityTask, ClassifierTask, SegmenterTask, TrainingTask

TINY: dict[str, Any] = {"backbone": "tiny", "weights": None, "preprocessing": None}
CLASSES: dict[str, Any] = {"num_classes": 3, "output_stride": 8}
EPS: dict[str, Any] = {**TINY, **CLASSES, "eps_share": 0, "ird_tau": None, "stride": 1}
TASKS: dict[str, TrainingTask] = {
    "classifier": ClassifierTask(**TINY, **CLASSES),
    "affinity": AffinityTask(**TINY, radius=5),
    "frozen affinity": AffinityTask(**TINY, radius=5, freeze_backbone=True),
    "segmenter": SegmenterTask(**TINY, num_classes=2, head="deeplabv3"),
    "eps": SaliencyTask(**EPS, method="eps"),
    "eps++": SaliencyTask(**EPS, method="eps++"),
    "eps++ without drop": SaliencyTask(**EPS, method="eps++", ird=False),
    "eps++ with tau": SaliencyTask(**{**EPS, "ird_tau": 0.4, "stride": 2}, method="eps++"),
}
SIZE = 48


def make_batch(task: TrainingTask) -> Batch:
    """Four crops, one of which couldn't be read; the colours of two are still to be changed."""
    rng = np.random.default_rng(0)
    targets: dict[str, Any] = {}
    for name, shape in task.target_shapes(SIZE).items():
        high = 2 if name in ("labels", "is_true") else 256 if name == "saliency" else 3
        targets[name] = rng.integers(0, high, (4, *shape)).astype(np.uint8)
        targets[name][2] = 255
    crops = rng.integers(0, 256, (4, 3, SIZE, SIZE)).astype(np.uint8)
    tensors = {name: torch.from_numpy(target) for name, target in targets.items()}
    changes = [draw_colour_change(rng, (0, 0, SIZE, SIZE)), None, None, draw_colour_change(rng, (3, 5, 40, 30))]
    return Batch(torch.from_numpy(crops), tensors, torch.tensor([True, True, False, True]), tuple(changes))


@cache
def train(name: str, optimizer: str, device: torch.device) -> tuple[dict[str, Tensor], list[Counter[str]]]:
    """Two steps, as the training loop takes them; the weights, and what was waited for in each step."""
    torch.manual_seed(0)
    task = TASKS[name]
    config = RunConfig(
        manifest="unused",
        out="unused",
        network=NetworkConfig(backbone="tiny", weights=None),
        optimizer=Optimizer(name=optimizer),  # type: ignore[arg-type]
    )
    waited = []
    with fake_device() as waits:
        network = task.build().to(device).train()
        network.to(memory_format=torch.channels_last)
        state = TrainingState(network, config.training(task.name), num_steps=10)
        for _ in range(2):
            waits.clear()
            batch = make_batch(task).to(device)
            sums, counts = loss_terms(task, network, batch, preprocessing=network.preprocessing, precision="fp32")
            state.step(distributed_loss(task, sums, counts, world_size=1))
            waited.append(waits.copy())
        return {key: value.detach().cpu() for key, value in network.state_dict().items()}, waited


@pytest.mark.parametrize("name", TASKS)
def test_steps_lead_to_the_weights_of_the_cpu(name: str) -> None:
    """By plain gradient descent: AdamW divides a gradient by its size, and makes a step of the rounding of a zero."""
    weights, _ = train(name, "sgd", DEVICE)
    expected, _ = train(name, "sgd", torch.device("cpu"))
    for key, value in weights.items():
        torch.testing.assert_close(value, expected[key], rtol=1e-4, atol=1e-6)


def test_nearly_all_weights_of_adamw_are_those_of_the_cpu() -> None:
    weights, _ = train("classifier", "adamw", DEVICE)
    expected, _ = train("classifier", "adamw", torch.device("cpu"))
    for key, value in weights.items():
        assert torch.isclose(value, expected[key], rtol=1e-4, atol=1e-6).float().mean() > 0.99, key


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", TASKS)
def test_a_step_waits_for_nothing(name: str, optimizer: str) -> None:
    """The first step copies tables to the device, which stay there."""
    _, waited = train(name, optimizer, DEVICE)
    assert not waited[1]
