import dataclasses

import pytest
import torch

from raypipe.ops.losses import multilabel_soft_margin
from raypipe.ops.saliency import eps_loss, foreground_loss, ird_loss
from raypipe.training.batch import Batch
from raypipe.training.saliency_task import SaliencyTask

TASK = SaliencyTask(
    backbone="tiny",
    weights=None,
    preprocessing=None,
    num_classes=2,
    output_stride=8,
    method="eps++",
    eps_share=0,
    ird_tau=None,
    stride=1,
)


def make_batch(valid: list[bool]) -> tuple[tuple[torch.Tensor, torch.Tensor], Batch]:
    rng = torch.Generator().manual_seed(0)
    output = torch.randn(2, 2, generator=rng), 3 * torch.randn(2, 3, 2, 2, generator=rng)
    targets = {
        "labels": torch.tensor([[1, 0], [1, 1]], dtype=torch.uint8),
        "saliency": torch.randint(256, (2, 16, 16), generator=rng, dtype=torch.uint8),
    }
    crops = torch.randint(256, (2, 3, 16, 16), generator=rng, dtype=torch.uint8)
    return output, Batch(crops, targets, torch.tensor(valid))


@pytest.mark.parametrize(("method", "ird"), [("eps", True), ("eps++", True), ("eps++", False)])
def test_loss_is_that_of_the_equations(method: str, *, ird: bool) -> None:
    task = dataclasses.replace(TASK, method=method, ird=ird)  # type: ignore[arg-type]
    (logits, scores), batch = make_batch([True, True])
    sums, counts = task.loss_terms((logits, scores), batch)
    labels, saliency = batch.targets["labels"].float(), batch.targets["saliency"][:, None] / 255
    if method == "eps":
        expected = eps_loss(scores, saliency, labels, tau=0.4, lam=0.5)
    elif ird:
        expected = ird_loss(scores, saliency, labels, batch.crops / 255)
    else:
        expected = foreground_loss(scores, saliency, labels)
    classification, _ = multilabel_soft_margin(logits, labels, batch.valid)
    assert counts.tolist() == [2, 2, 2]
    assert task.loss(sums, counts).item() == pytest.approx((classification / 2 + expected.loss).item())
    assert (sums / counts)[2].item() == pytest.approx(expected.inconsistent_region.float().mean().item())


def test_the_loss_is_that_of_crop_and_saliency_reduced_by_the_stride() -> None:
    task = dataclasses.replace(TASK, stride=4)
    (logits, scores), batch = make_batch([True, True])
    sums, _ = task.loss_terms((logits, scores), batch)
    image = (batch.crops / 255).reshape(2, 3, 4, 4, 4, 4).mean(dim=(3, 5))
    saliency = (batch.targets["saliency"] / 255).reshape(2, 1, 4, 4, 4, 4).mean(dim=(3, 5))
    expected = ird_loss(scores, saliency, batch.targets["labels"].float(), image)
    assert sums[1].item() == pytest.approx(expected.per_image.sum().item(), abs=1e-5)
    assert sums[2].item() == pytest.approx(expected.dropped_share.sum().item())


@pytest.mark.parametrize("ird", [True, False])
def test_tau_after_the_first_epochs(*, ird: bool) -> None:
    task = dataclasses.replace(TASK, ird=ird, ird_tau=0.6)
    (logits, scores), batch = make_batch([True, True])
    sums, _ = task.loss_terms((logits, scores), batch)
    labels, saliency = batch.targets["labels"].float(), batch.targets["saliency"][:, None] / 255
    if ird:
        expected = ird_loss(scores, saliency, labels, batch.crops / 255, tau=0.6)
    else:
        expected = foreground_loss(scores, saliency, labels, tau=0.6)
    assert sums[1].item() == pytest.approx(expected.per_image.sum().item())
    without, _ = dataclasses.replace(task, ird_tau=None).loss_terms((logits, scores), batch)
    assert abs(sums[1] - without[1]) > 1e-3


@pytest.mark.parametrize(
    ("share", "methods"),
    [
        (0.5, ["eps", "eps", "eps++", "eps++"]),
        (0.6, ["eps", "eps", "eps", "eps++"]),
        (0, ["eps++"] * 4),
        (1, ["eps"] * 4),
    ],
)
@pytest.mark.parametrize("ird", [True, False])
def test_eps_plus_plus_starts_as_eps(share: float, methods: list[str], *, ird: bool) -> None:
    task = dataclasses.replace(TASK, ird=ird, eps_share=share)
    assert [task.at_epoch(epoch, 4).method for epoch in range(4)] == methods


def test_eps_stays_eps() -> None:
    task = dataclasses.replace(TASK, method="eps", eps_share=0.5)
    assert [task.at_epoch(epoch, 4) for epoch in range(4)] == [task] * 4


def test_unreadable_crops_count_nothing() -> None:
    output, batch = make_batch([True, False])
    sums, counts = TASK.loss_terms(output, batch)
    alone, _ = TASK.loss_terms((output[0][:1], output[1][:1]), dataclasses.replace(
        batch, crops=batch.crops[:1], targets={name: target[:1] for name, target in batch.targets.items()},
        valid=batch.valid[:1],
    ))  # fmt: skip
    assert counts.tolist() == [1, 1, 1]
    torch.testing.assert_close(sums, alone)


def test_without_any_readable_crop_loss_and_gradient_are_zero() -> None:
    (logits, scores), batch = make_batch([False, False])
    scores.requires_grad_()
    loss = TASK.loss(*TASK.loss_terms((logits, scores), batch))
    loss.backward()
    assert loss.item() == 0
    assert scores.grad is not None
    assert not scores.grad.any()


def test_what_is_dropped_is_watched_and_no_loss() -> None:
    assert TASK.metric_names == ("loss_classification", "loss_saliency", "dropped_share")
    sums, counts = torch.tensor([1.0, 2.0, 100.0]), torch.tensor([2.0, 2.0, 2.0])
    assert TASK.loss(sums, counts).item() == 1.5


def test_targets() -> None:
    assert TASK.target_shapes(48) == {"labels": (2,), "saliency": (48, 48)}
