from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from raypipe.ops.pamr import DILATIONS, pamr


def inputs(generator: torch.Generator, *, num_maps: int = 3, size: tuple[int, int] = (9, 11)) -> tuple[Tensor, Tensor]:
    image = torch.rand(2, 3, *size, generator=generator, dtype=torch.float64)
    return image, torch.rand(2, num_maps, *size, generator=generator, dtype=torch.float64)


def test_golden(golden: Path) -> None:
    with np.load(golden / "pamr_10_1-2-4-8-12-24.npz") as data:
        refined = pamr(torch.from_numpy(data["image"]), torch.from_numpy(data["mask"]))
        np.testing.assert_allclose(refined, data["out"], rtol=1e-4)


def test_hand_worked() -> None:
    """A row of three pixels 0, 0, 1: all that is above and below repeats it, a neighbour beyond an end repeats it."""
    image = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).expand(1, 3, 1, 3)
    mask = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64).reshape(1, 1, 1, 3)
    refined = pamr(image, mask, num_iters=1, dilations=(1,))
    # Of the middle's 9 samples 3 are 1: variance (9/8) (1/3) (2/3) = 1/4. Its 8 neighbours: 5 equal, 3 at distance 1.
    unlike = np.exp(-1 / (1e-8 + 0.1 * 0.5))
    middle = 3 * unlike / (5 + 3 * unlike)
    # The right end has 6 samples of 1, the same variance, 5 equal neighbours of 8.
    right = 5 / (5 + 3 * unlike)
    np.testing.assert_allclose(refined.flatten(), [0, middle, right], rtol=1e-9, atol=1e-15)


def test_a_constant_mask_stays(generator: torch.Generator) -> None:
    image, _ = inputs(generator)
    mask = torch.full((2, 2, 4, 5), 0.3, dtype=torch.float64)
    torch.testing.assert_close(pamr(image, mask), torch.full((2, 2, 9, 11), 0.3, dtype=torch.float64))


def test_sums_over_maps_stay(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    refined = pamr(image, mask / mask.sum(dim=1, keepdim=True))
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(2, 9, 11, dtype=torch.float64))


def test_the_images_scale_does_not_matter(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    torch.testing.assert_close(pamr(255 * image, mask), pamr(image, mask), rtol=1e-5, atol=1e-6)


def test_it_is_linear(generator: torch.Generator) -> None:
    """So that refining a sum equals refining every map and summing."""
    image, mask = inputs(generator)
    torch.testing.assert_close(pamr(image, mask.sum(1, keepdim=True)), pamr(image, mask).sum(1, keepdim=True))
    torch.testing.assert_close(pamr(image, 2 * mask), 2 * pamr(image, mask))


def test_values_stay_within_their_range(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    refined = pamr(image, mask)
    assert refined.min() >= mask.min()
    assert refined.max() <= mask.max()


def test_images_of_a_batch_are_refined_each_by_itself(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    assert torch.equal(pamr(image, mask)[1:], pamr(image[1:], mask[1:]))


def test_mirrored_inputs_give_the_mirrored_result(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    torch.testing.assert_close(pamr(image.flip(-1), mask.flip(-1)), pamr(image, mask).flip(-1))


def test_an_edge_of_the_mask_moves_to_the_images() -> None:
    image = torch.zeros(1, 3, 16, 32)
    image[..., 16:] = 1
    mask = torch.zeros(1, 1, 16, 32)
    mask[..., 13:] = 1  # three columns too far
    refined = pamr(image, mask, dilations=(1, 2, 4)) > 0.5
    assert refined[..., 16:].all()
    assert refined[..., :16].sum() < mask[..., :16].sum()


def test_convention_align_corners() -> None:
    """No round: the mask's corners lie on the image's."""
    mask = torch.tensor([[0.0, 1.0]]).reshape(1, 1, 1, 2)
    assert pamr(torch.zeros(1, 3, 1, 5), mask, num_iters=0).flatten().tolist() == [0, 0.25, 0.5, 0.75, 1]


def test_an_image_of_one_colour_averages() -> None:
    mask = torch.rand(1, 1, 6, 6)
    refined = pamr(torch.full((1, 3, 6, 6), 0.5), mask, num_iters=1, dilations=(1,))
    centre = (mask[0, 0, 1:4, 1:4].sum() - mask[0, 0, 2, 2]) / 8
    assert refined[0, 0, 2, 2].item() == pytest.approx(centre.item(), rel=1e-5)


def test_gradient(generator: torch.Generator) -> None:
    image = torch.rand(1, 3, 4, 5, generator=generator, dtype=torch.float64)
    mask = torch.rand(1, 2, 3, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda maps: pamr(image, maps, num_iters=3, dilations=(1, 2)), mask)


def test_the_image_is_a_constant(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    refined = pamr(image.requires_grad_(), mask.requires_grad_())
    refined.sum().backward()
    assert image.grad is None
    assert mask.grad is not None


def test_no_map_and_no_image_give_none(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    assert pamr(image, mask[:, :0]).shape == (2, 0, 9, 11)
    assert pamr(image[:0], mask[:0]).shape == (0, 3, 9, 11)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dilations": ()}, "expected at least one dilation"),
        ({"dilations": (1, 0)}, "all positive"),
        ({"num_iters": -1}, "num_iters of at least 0 .*got -1"),
    ],
)
def test_bad_settings(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pamr(torch.zeros(1, 3, 4, 4), torch.zeros(1, 1, 4, 4), **changes)  # type: ignore[arg-type]


def test_an_empty_image_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        pamr(torch.zeros(1, 3, 0, 4), torch.zeros(1, 1, 4, 4))


def test_default_dilations_are_the_papers() -> None:
    assert DILATIONS == (1, 2, 4, 8, 12, 24)


@pytest.mark.gpu
def test_a_gpu_gives_the_same(generator: torch.Generator) -> None:
    image, mask = inputs(generator)
    torch.testing.assert_close(pamr(image.cuda(), mask.cuda()).cpu(), pamr(image, mask))
