import pytest
import torch

from raypipe.ops.floods import covered_border, covered_share


def test_hand_worked() -> None:
    """A frame of 10 cells around 2: nothing, all, the middle, the first row."""
    labels = torch.zeros(4, 3, 4, dtype=torch.uint8)
    labels[1], labels[2, 1, 1:3], labels[3, 0] = 2, 1, 3
    torch.testing.assert_close(covered_share(labels), torch.tensor([0, 1, 2 / 12, 4 / 12]))
    torch.testing.assert_close(covered_border(labels), torch.tensor([0, 1, 0, 4 / 10]))


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (2, 3)])
def test_a_thin_image_is_all_border(size: tuple[int, int]) -> None:
    labels = torch.zeros(1, *size, dtype=torch.uint8)
    labels[0, 0, 0] = 1
    assert covered_border(labels) == covered_share(labels) == 1 / (size[0] * size[1])


def test_classes_do_not_matter(generator: torch.Generator) -> None:
    labels = torch.randint(0, 4, (5, 6, 7), generator=generator).to(torch.uint8)
    for share in (covered_share, covered_border):
        assert torch.equal(share(labels), share(labels.clamp(max=1)))
        assert torch.equal(share(labels), share(labels.flip(1, 2)))
