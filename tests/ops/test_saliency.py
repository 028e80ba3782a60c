import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raypipe.ops.saliency import eps_loss, foreground_loss, ird_loss

LARGE = 50.0
"""A logit beside zeros: the softmax is 1."""


def logits_of(labels: list[list[int]], *, num_channels: int) -> Tensor:
    """(1, channels, h, w) whose softmax is 1 in the given channel of each pixel."""
    one_hot = torch.nn.functional.one_hot(torch.tensor(labels), num_channels)
    return LARGE * one_hot.permute(2, 0, 1)[None].float()


def some_inputs(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    logits = 3 * torch.randn(2, 4, 8, 10, generator=generator, dtype=torch.float64)
    saliency = torch.rand(2, 1, 8, 10, generator=generator, dtype=torch.float64)
    image = torch.rand(2, 3, 8, 10, generator=generator, dtype=torch.float64)
    return logits.requires_grad_(), saliency, torch.tensor([[1, 0, 1], [0, 1, 0]]), image


class TestEps:
    def test_golden(self, golden: Path) -> None:
        with np.load(golden / "eps_loss.npz") as data:
            given = [torch.from_numpy(data[name]) for name in ("cam", "saliency", "label")]
            result = eps_loss(*given, tau=0.5, lam=0.5)
            assert result.loss.item() == pytest.approx(data["loss_0.5"].item(), rel=1e-4)
            np.testing.assert_allclose(result.foreground, data["fg_0.5"], rtol=1e-4)
            np.testing.assert_allclose(1 - result.background, data["bg_0.5"], rtol=1e-4)  # stored the other way round
            np.testing.assert_allclose(result.estimate, data["pred_0.5"], rtol=1e-4)

    def test_hand_worked(self) -> None:
        """Class 0 lies in the saliency, class 1 outside of it and is taken for background, class 2 is no label."""
        logits = logits_of([[0, 1, 2, 3]], num_channels=4)
        saliency = torch.tensor([1.0, 0.0, 0.0, 0.5]).reshape(1, 1, 1, 4)
        result = eps_loss(logits, saliency, torch.tensor([[1, 1, 0]]), lam=0.75)
        assert result.foreground.flatten().tolist() == pytest.approx([1, 0, 0, 0])
        assert result.background.flatten().tolist() == pytest.approx([0, 1, 0, 1])
        assert result.estimate.flatten().tolist() == pytest.approx([1, 0, 0.25, 0])
        assert result.loss.item() == pytest.approx((0.25**2 + 0.5**2) / 4)

    @pytest.mark.parametrize(("tau", "is_foreground"), [(0.3, True), (0.4, False)])
    def test_tau_is_the_share_of_a_map_that_is_salient(self, tau: float, *, is_foreground: bool) -> None:
        logits = logits_of([[0, 0, 0, 1]], num_channels=2)
        saliency = torch.tensor([1.0, 0, 0, 0]).reshape(1, 1, 1, 4)
        result = eps_loss(logits, saliency, torch.ones(1, 1), tau=tau)
        assert result.foreground.sum().item() == pytest.approx(3 if is_foreground else 0)

    def test_convention_saliency_comes_to_the_logits_by_nearest_neighbour(self) -> None:
        saliency = torch.arange(16.0).reshape(1, 1, 4, 4) / 16
        result = eps_loss(torch.zeros(1, 2, 2, 2), saliency, torch.ones(1, 1))
        assert (16 * result.saliency).flatten().tolist() == [0, 2, 8, 10]

    def test_the_choice_of_classes_takes_no_gradient(self, generator: torch.Generator) -> None:
        logits, saliency, labels, _ = some_inputs(generator)
        assert torch.autograd.gradcheck(lambda values: eps_loss(values, saliency, labels).per_image, logits)

    @pytest.mark.parametrize("changes", [{"tau": 1.5}, {"lam": -0.1}])
    def test_bad_settings(self, changes: dict[str, float]) -> None:
        with pytest.raises(ValueError, match=r"expected tau and lam in \[0, 1\]"):
            eps_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3), torch.ones(1, 1), **changes)


class TestIrd:
    def test_hand_worked(self) -> None:
        """One round of PAMR over an image of one colour averages a pixel's neighbours: 2/8 and 3/8 ... of the mask."""
        logits = logits_of([[0, 0, 0, 0, 1, 1]], num_channels=2)
        saliency = torch.tensor([1.0, 0.5, 0.0, 1.0, 0.0, 1.0]).reshape(1, 1, 1, 6)
        result = ird_loss(logits, saliency, torch.ones(1, 1), torch.zeros(1, 3, 1, 6), num_iters=1, dilations=(1,))
        assert result.refined.flatten().tolist() == pytest.approx([1, 1, 1, 5 / 8, 3 / 8, 0])
        # 0.5 rounds to 0, as tensors round: inconsistent with a foreground of 1.
        assert result.inconsistent_region.flatten().tolist() == [False, True, True, False, False, True]
        assert result.loss.item() == pytest.approx(0)
        assert result.dropped_share.item() == pytest.approx(0.5)

    def test_equal_maps_give_the_plain_mean_squared_error(self) -> None:
        """Without a round of PAMR nothing is inconsistent."""
        logits = logits_of([[0, 0, 1], [1, 0, 1]], num_channels=2)
        saliency = 0.6 * logits.softmax(1)[:, :1]
        image = torch.rand(1, 3, 2, 3)
        result = ird_loss(logits, saliency, torch.ones(1, 1), image, num_iters=0)
        assert not result.inconsistent_region.any()
        assert result.loss.item() == pytest.approx(3 * 0.4**2 / 6)
        torch.testing.assert_close(result.loss, foreground_loss(logits, saliency, torch.ones(1, 1)).loss)

    def test_complementary_maps_give_zero_loss_and_gradient(self) -> None:
        logits = logits_of([[0, 0, 1], [1, 0, 1]], num_channels=2).requires_grad_()
        saliency = 1 - logits.detach().softmax(1)[:, :1]
        result = ird_loss(logits, saliency, torch.ones(1, 1), torch.rand(1, 3, 2, 3), num_iters=0)
        result.loss.backward()
        assert result.inconsistent_region.all()
        assert result.loss.item() == 0
        assert logits.grad is not None
        assert not logits.grad.any()

    def test_gradient_is_zero_in_the_dropped_region_only(self, generator: torch.Generator) -> None:
        logits, saliency, labels, image = some_inputs(generator)
        result = ird_loss(logits, saliency, labels, image)
        result.loss.backward()
        dropped = result.inconsistent_region[:, 0]
        assert 0 < dropped.double().mean() < 1
        assert logits.grad is not None
        strength = logits.grad.abs().sum(dim=1)
        assert not strength[dropped].any()
        assert (strength[~dropped] > 0).all()

    def test_gradient(self, generator: torch.Generator) -> None:
        logits, saliency, labels, image = some_inputs(generator)

        def loss(values: Tensor) -> Tensor:
            return ird_loss(values, saliency, labels, image).per_image

        assert torch.autograd.gradcheck(loss, logits, fast_mode=True)

    def test_only_labelled_classes_count(self, generator: torch.Generator) -> None:
        logits, saliency, labels, image = some_inputs(generator)
        result = ird_loss(logits, saliency, labels, image)
        maps = logits.softmax(1)
        torch.testing.assert_close(result.foreground[0, 0], maps[0, 0] + maps[0, 2])
        torch.testing.assert_close(result.foreground[1, 0], maps[1, 1])
        torch.testing.assert_close(result.background, maps[:, 3:])

    def test_convention_foreground_comes_to_the_saliency_with_aligned_corners(self) -> None:
        logits = logits_of([[0, 1]], num_channels=2)
        result = foreground_loss(logits, torch.zeros(1, 1, 1, 5), torch.ones(1, 1))
        assert result.foreground.flatten().tolist() == pytest.approx([1, 0.75, 0.5, 0.25, 0])

    def test_an_image_of_another_size_is_refused(self) -> None:
        with pytest.raises(ValueError, match="resize the image"):
            ird_loss(torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3), torch.ones(1, 1), torch.zeros(1, 3, 6, 6))


class TestBoth:
    @pytest.mark.parametrize("parts", [[2], [1, 1]])
    def test_images_of_workers_add_up(self, generator: torch.Generator, parts: list[int]) -> None:
        logits, saliency, labels, image = some_inputs(generator)
        for whole, of_part in (
            (eps_loss(logits, saliency, labels), lambda *part: eps_loss(*part[:3])),
            (ird_loss(logits, saliency, labels, image), ird_loss),
        ):
            split = [tensor.split(parts) for tensor in (logits, saliency, labels, image)]
            values = [of_part(*part).per_image for part in zip(*split, strict=True)]
            torch.testing.assert_close(torch.cat(values), whole.per_image)
            assert whole.loss.item() == pytest.approx(whole.per_image.mean().item())

    def test_no_images_have_no_loss(self) -> None:
        given = (torch.zeros(0, 2, 3, 3), torch.zeros(0, 1, 6, 6), torch.ones(0, 1))
        assert eps_loss(*given).loss.item() == 0
        assert ird_loss(*given, torch.zeros(0, 3, 6, 6)).loss.item() == 0

    @pytest.mark.parametrize("value", [-1e4, 1e4])
    def test_extreme_logits_stay_finite(self, value: float) -> None:
        logits = torch.full((1, 3, 2, 2), value)
        logits[:, 1] = 0
        logits.requires_grad_()
        given = (logits, torch.rand(1, 1, 2, 2), torch.tensor([[True, False]]))
        loss = eps_loss(*given).loss + ird_loss(*given, torch.rand(1, 3, 2, 2)).loss
        loss.backward()
        assert math.isfinite(loss.item())
        assert logits.grad is not None
        assert logits.grad.isfinite().all()

    def test_logits_without_a_background_are_refused(self) -> None:
        given = (torch.zeros(1, 2, 3, 3), torch.zeros(1, 1, 3, 3), torch.ones(1, 2))
        with pytest.raises(ValueError, match="background's last"):
            eps_loss(*given)
        with pytest.raises(ValueError, match="background's last"):
            ird_loss(*given, torch.zeros(1, 3, 3, 3))


class TestTauOfTheDrop:
    """EPS's choice of classes in EPS++, which its paper does without."""

    @staticmethod
    def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Class 0 is salient, class 1 isn't; pixels of the same colour within a class."""
        logits = logits_of([[0, 0, 1, 1]] * 4, num_channels=3)
        saliency = torch.tensor([1.0, 1, 0, 0]).expand(1, 1, 4, 4)
        return logits, saliency, torch.tensor([[1, 1]]), saliency.expand(1, 3, 4, 4)

    def test_a_class_that_is_not_salient_is_no_foreground(self) -> None:
        logits, saliency, labels, image = self.inputs()
        both = ird_loss(logits, saliency, labels, image, dilations=(1,))
        assert both.foreground.flatten().tolist() == pytest.approx([1] * 16)
        assert both.dropped_share.item() == 0.5
        salient = ird_loss(logits, saliency, labels, image, dilations=(1,), tau=0.4)
        torch.testing.assert_close(salient.foreground, saliency)
        assert salient.dropped_share.item() == 0
        assert salient.loss.item() == pytest.approx(0, abs=1e-9)

    def test_saliency_does_not_teach_its_map(self) -> None:
        logits, saliency, labels, _ = self.inputs()
        largest = {}
        for tau in (None, 0.4):
            scores = (0.1 * logits).requires_grad_()  # softmax 0.99: 1 has no gradient
            foreground_loss(scores, saliency, labels, tau=tau).loss.backward()
            assert scores.grad is not None
            largest[tau] = scores.grad[..., 2:].abs().max().item()
        assert largest[0.4] < 0.02 * largest[None]

    def test_classes_that_are_salient_change_nothing(self, generator: torch.Generator) -> None:
        logits, _, labels, image = some_inputs(generator)
        everywhere = torch.ones(2, 1, 8, 10, dtype=torch.float64)
        torch.testing.assert_close(
            ird_loss(3 * logits, everywhere, labels, image, dilations=(1,), tau=0.5).per_image,
            ird_loss(3 * logits, everywhere, labels, image, dilations=(1,)).per_image,
        )

    @pytest.mark.parametrize("tau", [-0.1, 1.1])
    def test_bad_tau(self, tau: float) -> None:
        logits, saliency, labels, image = self.inputs()
        with pytest.raises(ValueError, match=rf"expected tau in \[0, 1\] .*got {tau}"):
            ird_loss(logits, saliency, labels, image, tau=tau)
