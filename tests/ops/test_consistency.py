import pytest
import torch

from raypipe.ops.consistency import class_consistency, masked_copies


def test_copies_by_hand() -> None:
    image = torch.tensor([[[0.0, 4.0]], [[2.0, 2.0]], [[1.0, 5.0]]])  # means 2, 2, 3
    regions = torch.tensor([[[True, False]], [[False, False]]])
    copies = masked_copies(image, regions)
    assert copies[:, 0, 0].tolist() == [[0, 2], [2, 2], [2, 4], [0, 4]]  # both shown, then both hidden
    assert copies[:, 2, 0].tolist() == [[1, 3], [3, 3], [3, 5], [1, 5]]


def test_score_by_hand() -> None:
    """Logit log 3 is a probability of 3/4, 0 of 1/2; channels 2 and 0 of three."""
    log3 = torch.tensor(3.0).log().item()
    logits = torch.tensor([[9, 9, log3], [log3, 9, 9], [9, 9, 0], [-log3, 9, 9]])
    assert class_consistency(logits, [2, 0]).item() == pytest.approx((0.25 + 0.5) / 2)


def test_the_right_region_scores_higher_than_one_that_spills_over_or_is_cut() -> None:
    """By a network that finds a class by how red the image is on average."""
    image = torch.zeros(3, 8, 8)
    image[0, 2:6, 2:6] = 1
    right = image[0] > 0
    cut, spilt = right.clone(), right.clone()
    cut[:4] = False
    spilt[:, 2:] = True

    def score(region: torch.Tensor) -> float:
        copies = masked_copies(image, region[None])
        return class_consistency(8 * copies[:, :1].mean(dim=(2, 3)) - 2, [0]).item()

    assert score(right) > max(score(cut), score(spilt))
    assert score(torch.zeros_like(right)) == pytest.approx(-score(torch.ones_like(right)), abs=1e-6)


def test_impossible_input() -> None:
    with pytest.raises(ValueError, match="resize the regions"):
        masked_copies(torch.zeros(3, 4, 4), torch.zeros(1, 4, 5, dtype=torch.bool))
    with pytest.raises(ValueError, match="expected logits of two copies for each"):
        class_consistency(torch.zeros(3, 2), [0])
    with pytest.raises(ValueError, match="expected logits of two copies for each"):
        class_consistency(torch.zeros(0, 2), [])
