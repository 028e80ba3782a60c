import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.separation import objective, separation


def test_hand_worked() -> None:
    """Features 0, 0, 4, 8: mean 3, variance sum 9 + 9 + 1 + 25 = 44; halves have means 0 and 6, between 2 (9 + 9)."""
    features = torch.tensor([[[0.0, 0.0, 4.0, 8.0]]])
    labels = torch.tensor([[[0, 0, 1, 1]], [[0, 0, 0, 0]], [[0, 0, 1, 2]], [[1, 1, 2, 3]]], dtype=torch.uint8)
    torch.testing.assert_close(separation(features, labels, num_labels=4), torch.tensor([36 / 44, 0, 1, 1]))


def test_the_true_regions_part_better_than_shifted_ones() -> None:
    features = torch.zeros(2, 12, 12)
    features[:, 3:8, 4:9] = 1
    features += 0.1 * torch.randn(2, 12, 12, generator=torch.Generator().manual_seed(0))
    truth = torch.zeros(12, 12, dtype=torch.uint8)
    truth[3:8, 4:9] = 1
    shifted = torch.stack([truth.roll(by, dims=1) for by in range(4)])
    parted = separation(features, shifted, num_labels=2)
    assert parted[0] > 0.9
    assert (parted.diff() < 0).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**16))
def test_properties(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(5, 6, 7, generator=generator)
    labels = torch.randint(0, 3, (4, 6, 7), generator=generator).to(torch.uint8)
    parted = separation(features, labels, num_labels=3)
    assert ((parted >= 0) & (parted <= 1)).all()
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator))[0]
    moved = torch.einsum("dhw,dc->chw", features, rotation) * 3 + 2
    torch.testing.assert_close(separation(moved, labels, num_labels=3), parted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(separation(features, 2 - labels, num_labels=3), parted)  # names don't matter
    merged = separation(features, labels.clamp(max=1), num_labels=2)
    assert (merged <= parted + 1e-6).all()  # a finer partition never explains less


def test_plain_features_part_nothing() -> None:
    labels = torch.tensor([[[0, 1]]], dtype=torch.uint8)
    assert separation(torch.ones(3, 1, 2), labels, num_labels=2).tolist() == [0]


def test_grids_differ() -> None:
    with pytest.raises(ValueError, match="grid of"):
        separation(torch.zeros(1, 2, 2), torch.zeros(1, 3, 2, dtype=torch.uint8), num_labels=1)


def test_objective() -> None:
    assert objective(torch.tensor(0.5), torch.tensor(0.0625)).item() == pytest.approx(0.25)
