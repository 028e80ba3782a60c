import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raypipe.ops.affinity import affinity_labels, pairwise_affinity
from raypipe.ops.losses import (
    affinity_loss,
    affinity_loss_terms,
    multilabel_soft_margin,
    pixel_cross_entropy,
)


class TestMultilabelSoftMargin:
    def test_hand_worked(self) -> None:
        total, count = multilabel_soft_margin(
            torch.tensor([[0.0, math.log(3)], [7.0, 7.0]]),
            torch.tensor([[1, 0], [255, 255]], dtype=torch.uint8),
            torch.tensor([True, False]),
        )
        assert total.item() == pytest.approx((math.log(2) + math.log(4)) / 2)
        assert count.item() == 1

    def test_mean_is_that_of_torch(self, generator: torch.Generator) -> None:
        logits = 5 * torch.randn(6, 20, generator=generator)
        labels = (torch.rand(6, 20, generator=generator) < 0.2).float()
        total, count = multilabel_soft_margin(logits, labels, torch.ones(6, dtype=torch.bool))
        torch.testing.assert_close(total / count, F.multilabel_soft_margin_loss(logits, labels))

    def test_extreme_logits_stay_finite(self) -> None:
        total, _ = multilabel_soft_margin(torch.tensor([[1e4, -1e4]]), torch.tensor([[0.0, 1.0]]), torch.tensor([True]))
        assert total.item() == pytest.approx(1e4)


class TestAffinityLoss:
    def test_hand_worked(self) -> None:
        affinity = torch.tensor([0.5, 0.25, 0.2, 0.6, 0.9]).reshape(1, 5, 1, 1)
        bg_pos, fg_pos, neg = (
            torch.tensor(mask, dtype=torch.bool).reshape(1, 5, 1, 1)
            for mask in ([1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0])
        )
        sums, counts = affinity_loss_terms(affinity, bg_pos, fg_pos, neg)
        expected = [-math.log(0.50001) - math.log(0.25001), -math.log(0.20001), -math.log(0.40001)]
        assert sums.tolist() == pytest.approx(expected, rel=1e-5)
        assert counts.tolist() == [2, 1, 1]
        loss = expected[0] / 2 / 4 + expected[1] / 4 + expected[2] / 2
        assert affinity_loss(sums, counts).item() == pytest.approx(loss, rel=1e-5)

    def test_missing_kinds_of_pairs_add_nothing(self) -> None:
        affinity = torch.full((1, 4, 3, 3), 0.5, requires_grad=True)
        nothing = torch.zeros(1, 4, 3, 3, dtype=torch.bool)
        loss = affinity_loss(*affinity_loss_terms(affinity, nothing, nothing, nothing))
        loss.backward()
        assert loss.item() == 0
        assert affinity.grad is not None
        assert not affinity.grad.any()

    @pytest.mark.parametrize("value", [0.0, 1.0])
    def test_finite_at_the_ends(self, value: float) -> None:
        affinity = torch.full((1, 4, 3, 3), value, requires_grad=True)
        every = torch.ones(1, 4, 3, 3, dtype=torch.bool)
        affinity_loss(*affinity_loss_terms(affinity, every, every, every)).backward()
        assert affinity.grad is not None
        assert affinity.grad.isfinite().all()

    def test_descent_moves_like_together_and_unlike_apart(self) -> None:
        affinity = torch.full((1, 3, 1, 1), 0.5, requires_grad=True)
        masks = torch.eye(3, dtype=torch.bool).reshape(3, 1, 3, 1, 1)
        affinity_loss(*affinity_loss_terms(affinity, masks[0], masks[1], masks[2])).backward()
        assert affinity.grad is not None
        assert affinity.grad.flatten().sign().tolist() == [-1, -1, 1]

    @pytest.mark.parametrize("parts", [[6], [2, 4], [1, 4, 1]])
    def test_same_loss_and_gradient_however_the_batch_is_split(self, parts: list[int]) -> None:
        """As in distributed training: counts summed over the workers, each worker backward on its own sums."""
        rng = np.random.default_rng(0)
        labels = torch.from_numpy(rng.choice(np.array([0, 0, 1, 2, 255], np.uint8), (6, 7, 8)))
        labels[0] = 0  # a worker that gets only this image has no foreground pair
        features = torch.from_numpy(rng.normal(size=(6, 4, 7, 8))).requires_grad_()

        def terms(of: slice) -> tuple[torch.Tensor, torch.Tensor]:
            return affinity_loss_terms(
                pairwise_affinity(features[of], radius=3), *affinity_labels(labels[of], radius=3)
            )

        whole = affinity_loss(*terms(slice(None)))
        (expected,) = torch.autograd.grad(whole, features)

        ends = np.cumsum(parts)
        slices = [slice(end - part, end) for end, part in zip(ends, parts, strict=True)]
        counts = torch.stack([terms(of)[1] for of in slices]).sum(0)
        losses = [affinity_loss(terms(of)[0], counts) for of in slices]
        for loss in losses:
            loss.backward()
        torch.testing.assert_close(torch.stack(losses).sum(), whole)
        torch.testing.assert_close(features.grad, expected)


class TestPixelCrossEntropy:
    def test_hand_worked(self) -> None:
        logits = torch.tensor([0.0, math.log(3)]).reshape(1, 2, 1, 1).expand(1, 2, 1, 3)
        mask = torch.tensor([[[0, 1, 255]]], dtype=torch.uint8)
        expected = torch.tensor([[[math.log(4), math.log(4 / 3), 0.0]]])
        torch.testing.assert_close(pixel_cross_entropy(logits, mask), expected)

    def test_nothing_is_learned_of_ignored_pixels(self) -> None:
        logits = torch.zeros(1, 2, 1, 2, requires_grad=True)
        pixel_cross_entropy(logits, torch.tensor([[[1, 255]]], dtype=torch.uint8)).sum().backward()
        assert logits.grad is not None
        assert logits.grad[..., 0].abs().min() > 0
        assert not logits.grad[..., 1].any()
