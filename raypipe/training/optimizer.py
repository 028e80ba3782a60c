"""Builds the optimiser, with the parameter groups of the paper's code, and its polynomial schedule."""

from typing import Any

import torch
from torch import nn

from raypipe.networks import Network

POWER = 0.9
"""Exponent of the polynomial decay in DeepLab, psa and irn."""
LONGEST_WARMUP = 0.25
"""Of a training's steps: the warm-up of a large set's recipe would last longer than a small set's training."""


def parameter_groups(
    network: Network, *, lr: float, new_lr_factor: float, bias_lr_factor: float, weight_decay: float
) -> list[dict[str, Any]]:
    """Splits the trainable parameters into up to four groups: {pretrained, new} x {weights, biases}.

    Biases and one-dimensional parameters (norms' scales) get no weight decay.
    """
    new = {id(parameter) for parameter in network.new_parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in network.parameters():
        if parameter.requires_grad:
            groups.setdefault((id(parameter) in new, parameter.ndim <= 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": lr * (new_lr_factor if is_new else 1.0) * (bias_lr_factor if is_bias else 1.0),
            "weight_decay": 0.0 if is_bias else weight_decay,
        }
        for (is_new, is_bias), parameters in sorted(groups.items(), key=lambda item: item[0])
    ]


def build_optimizer(groups: list[dict[str, Any]], *, name: str, momentum: float) -> torch.optim.Optimizer:
    """Builds the optimiser of the groups, with every hyper-parameter passed by name.

    psa's own class passes its weight decay by position, where SGD expects the momentum.
    """
    if name == "sgd":
        return torch.optim.SGD(groups, momentum=momentum)
    return torch.optim.AdamW(groups)


def poly_factor(step: int, *, num_steps: int, warmup_steps: int) -> float:
    """Returns the factor of the learning rate at a step: linear warm-up times (1 - step / num_steps)^0.9.

    Args:
        step: counted from 0.
        num_steps: of the whole training.
        warmup_steps: of the warm-up, which takes no more than `LONGEST_WARMUP` of the training, however many these are.
    """
    warmup_steps = min(warmup_steps, int(LONGEST_WARMUP * num_steps))
    warmup = min(1.0, (step + 1) / warmup_steps) if warmup_steps else 1.0
    return float(warmup * (1 - min(step, num_steps) / num_steps) ** POWER)
