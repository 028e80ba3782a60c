import pytest
import torch

from raypipe.networks import build_classifier
from raypipe.training.optimizer import build_optimizer, parameter_groups, poly_factor


def test_groups_have_the_papers_rates() -> None:
    network = build_classifier("vgg16", num_classes=3)
    groups = parameter_groups(network, lr=0.1, new_lr_factor=10, bias_lr_factor=2, weight_decay=5e-4)
    assert {(round(group["lr"], 6), group["weight_decay"]) for group in groups} == {
        (0.1, 5e-4),
        (0.2, 0.0),
        (1.0, 5e-4),
    }
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    assert grouped == {id(parameter) for parameter in network.parameters() if parameter.requires_grad}


def test_momentum_is_momentum() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = build_optimizer([{"params": [parameter], "weight_decay": 5e-4, "lr": 0.1}], name="sgd", momentum=0.9)
    assert optimizer.param_groups[0]["momentum"] == 0.9
    assert optimizer.param_groups[0]["weight_decay"] == 5e-4


def test_poly_by_hand() -> None:
    assert poly_factor(0, num_steps=100, warmup_steps=0) == 1
    assert poly_factor(75, num_steps=100, warmup_steps=0) == pytest.approx(0.25**0.9)
    assert poly_factor(100, num_steps=100, warmup_steps=0) == 0
    assert poly_factor(4, num_steps=100, warmup_steps=10) == pytest.approx(0.5 * 0.96**0.9)


def test_a_short_training_is_warm_after_a_quarter_of_its_steps() -> None:
    """Ten epochs of sixty images have 40 steps, the recipes for PASCAL VOC a warm-up of 50."""
    factors = [poly_factor(step, num_steps=40, warmup_steps=50) for step in range(40)]
    assert factors[4] == pytest.approx(0.5 * 0.9**0.9)
    assert factors[9] == pytest.approx((31 / 40) ** 0.9)
    assert max(factors) == factors[9]
    assert poly_factor(0, num_steps=3, warmup_steps=50) == 1
