from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from raypipe.ops.dense_crf import dense_crf_many
from raypipe.ops.mean_field import mean_field


def drawn(
    seed: int, *, num_labels: int = 3, size: tuple[int, int] = (60, 75), num_stacks: int = 1
) -> tuple[Tensor, Tensor]:
    """A photograph-like image of regions, shades and noise, and smooth scores that know the regions roughly."""
    rng = torch.Generator().manual_seed(seed)

    def smooth(channels: int, cells: int) -> Tensor:
        coarse = torch.rand(1, channels, cells, cells, generator=rng)
        return F.interpolate(coarse, size=size, mode="bicubic", align_corners=False)[0].clamp(0, 1)

    regions = smooth(num_labels, 5).argmax(dim=0)
    colours = 255 * torch.rand(num_labels, 3, generator=rng)
    image = colours[regions] + 60 * (smooth(1, 3)[0, :, :, None] - 0.5) + 6 * torch.randn(*size, 3, generator=rng)
    known = F.one_hot(regions, num_labels).permute(2, 0, 1).float()[None]
    blurred = F.interpolate(F.adaptive_avg_pool2d(known, 9), size=size, mode="bilinear", align_corners=False)[0]
    scores = torch.stack([blurred + 0.5 * smooth(num_labels, 7) for _ in range(num_stacks)])
    return image.clamp(0, 255).to(torch.uint8), scores / scores.sum(dim=1, keepdim=True)


def reference(image: Tensor, scores: Tensor, **knobs: Any) -> np.ndarray:
    return np.stack(dense_crf_many(image.numpy(), list(scores.numpy()), **knobs))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "knobs",
    [
        {},
        {"compat_bilateral": 3},
        {"sxy_gaussian": 0.75, "sxy_bilateral": 20},
        {"sxy_bilateral": 5, "srgb": 40},
        {"num_iters": 1},
        {"compat_bilateral": 0.3, "compat_gaussian": 0.1},
    ],
    ids=str,
)
def test_it_is_the_dense_crf_of_the_cpu(seed: int, knobs: dict[str, Any]) -> None:
    image, scores = drawn(seed, num_labels=2 + seed, num_stacks=2)
    refined, expected = mean_field(image, scores, **knobs).numpy(), reference(image, scores, **knobs)
    assert (refined.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.9999
    np.testing.assert_allclose(refined, expected, atol=1e-3)
    assert np.abs(refined - expected).mean() < 1e-6


def test_that_is_no_small_thing() -> None:
    """Of the test above: refined masks differ from those before by more than they may differ from each other."""
    image, scores = drawn(0)
    before, after = scores.argmax(dim=1), mean_field(image, scores).argmax(dim=1)
    assert (before == after).float().mean() < 0.98


@pytest.mark.parametrize("colour", [0, 255])
def test_an_image_of_one_colour(colour: int) -> None:
    """Thousands of pixels share each vertex."""
    _, scores = drawn(0)
    image = torch.full((60, 75, 3), colour, dtype=torch.uint8)
    np.testing.assert_allclose(mean_field(image, scores).numpy(), reference(image, scores), atol=1e-3)


def test_convention_probabilities_over_labels() -> None:
    image, scores = drawn(0, num_stacks=2)
    refined = mean_field(image, scores)
    assert refined.dtype == torch.float32
    assert refined.shape == scores.shape
    torch.testing.assert_close(refined.sum(dim=1), torch.ones(2, 60, 75))


def test_without_iterations_only_the_scores_count() -> None:
    image, scores = drawn(0)
    scores = 0.3 * scores + 0.01
    torch.testing.assert_close(mean_field(image, scores, num_iters=0), scores / scores.sum(dim=1, keepdim=True))


def test_several_stacks_are_refined_as_if_each_alone() -> None:
    image, scores = drawn(0, num_stacks=3)
    alone = torch.cat([mean_field(image, stack[None]) for stack in scores])
    assert torch.equal(mean_field(image, scores), alone)


def test_runs_give_equal_bytes() -> None:
    image, scores = drawn(0)
    assert torch.equal(mean_field(image, scores), mean_field(image.clone(), scores.clone()))


def test_any_memory_layout_and_dtype() -> None:
    image, scores = drawn(0)
    expected = mean_field(image, scores)
    turned = scores.transpose(2, 3).contiguous().transpose(2, 3)
    assert torch.equal(mean_field(image.flip(0).flip(0), turned), expected)
    torch.testing.assert_close(mean_field(image, scores.double()), expected, atol=1e-4, rtol=0)


def test_one_label_is_certain() -> None:
    image, scores = drawn(0)
    assert (mean_field(image, scores[:, :1]) == 1).all()


def test_no_stacks() -> None:
    image, scores = drawn(0)
    assert mean_field(image, scores[:0]).shape == (0, 3, 60, 75)


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (3, 1)])
def test_tiny_images(size: tuple[int, int]) -> None:
    refined = mean_field(torch.zeros(*size, 3, dtype=torch.uint8), torch.full((1, 3, *size), 0.2))
    torch.testing.assert_close(refined, torch.full((1, 3, *size), 1 / 3))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda scores: scores[:, :, 1:], r"needs \(3, 60, 75\)"),
        (lambda scores: scores[:, :0], "at least one label"),
        (lambda scores: scores * torch.nan, "expected finite scores"),
        (lambda scores: scores / 0, "expected finite scores"),
    ],
)
def test_bad_scores_are_refused_as_on_the_cpu(change: Any, message: str) -> None:
    image, scores = drawn(0)
    for refine in (mean_field, reference):
        with pytest.raises(ValueError, match=message):
            refine(image, change(scores))


def test_reaches_that_are_too_small_are_refused() -> None:
    image, scores = drawn(0)
    with pytest.raises(ValueError, match="widen the Gaussian"):
        mean_field(image, scores, srgb=1e-3)


@pytest.mark.gpu
def test_a_gpu_gives_the_same() -> None:
    image, scores = drawn(0, size=(300, 400), num_stacks=2)
    first, again = (mean_field(image.cuda(), scores.cuda()) for _ in range(2))
    assert torch.equal(first, again)
    assert (first.cpu().argmax(dim=1) == mean_field(image, scores).argmax(dim=1)).float().mean() > 0.999
