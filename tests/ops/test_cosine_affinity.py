import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.affinity import inside_grid, pair_offsets
from raypipe.ops.cosine_affinity import cosine_affinity


def reference(features: torch.Tensor, radius: int) -> torch.Tensor:
    """The definition, one pair of cells at a time."""
    _, height, width = features.shape
    offsets = pair_offsets(radius).tolist()
    result = features.new_zeros(len(offsets), height, width)
    for k, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if y + dy < height and 0 <= x + dx < width:
                    one, other = features[:, y, x], features[:, y + dy, x + dx]
                    result[k, y, x] = max(0.0, float(one @ other / (one.norm() * other.norm())))
    return result


def test_values_by_hand() -> None:
    """Three cells in a row: at 45 degrees, opposite to the first, and so at 135 degrees to the second."""
    features = torch.tensor([[[1.0, 3.0, -2.0]], [[0.0, 3.0, 0.0]]])
    affinity = cosine_affinity(features, radius=3)
    right, two_right = affinity[0, 0], affinity[1, 0]
    torch.testing.assert_close(right, torch.tensor([math.sqrt(0.5), 0.0, 0.0]))
    torch.testing.assert_close(two_right, torch.zeros(3))
    assert affinity[2:].abs().max() == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4))
def test_equals_the_definition_on_any_grid(height: int, width: int, radius: int) -> None:
    features = torch.randn(3, height, width, generator=torch.Generator().manual_seed(7 * height + width))
    torch.testing.assert_close(cosine_affinity(features, radius=radius), reference(features, radius))


def test_a_batch_gives_each_image_its_affinity() -> None:
    features = torch.randn(2, 3, 8, 5, 6)
    batch = cosine_affinity(features, radius=3)
    torch.testing.assert_close(batch[1, 2], cosine_affinity(features[1, 2], radius=3))


def test_the_length_of_a_cells_features_says_nothing() -> None:
    features = torch.rand(8, 5, 6)
    lengths = torch.rand(5, 6) * 100 + 0.1
    torch.testing.assert_close(cosine_affinity(features * lengths), cosine_affinity(features))


def test_equal_features_are_alike_and_no_value_is_above_1() -> None:
    features = torch.rand(1280, 1, 1).expand(-1, 7, 9)
    affinity = cosine_affinity(features, radius=5)
    inside = inside_grid(7, 9, 5, affinity.device).reshape(affinity.shape)
    torch.testing.assert_close(affinity[inside], torch.ones(int(inside.sum())))
    assert affinity.max() <= 1
    assert affinity[~inside].abs().max() == 0


def test_a_cell_without_features_is_like_no_other() -> None:
    features = torch.ones(4, 3, 3)
    features[:, 1, 1] = 0
    affinity = cosine_affinity(features, radius=2)
    assert torch.isfinite(affinity).all()
    assert affinity[:, 1, 1].abs().max() == affinity[0, 1, 0] == 0
    assert affinity[0, 0, 0] == 1


def test_half_precision_is_computed_in_float32() -> None:
    features = torch.randn(64, 5, 6).bfloat16()
    affinity = cosine_affinity(features)
    assert affinity.dtype == torch.float32
    torch.testing.assert_close(affinity, cosine_affinity(features.float()))


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least one channel, got none"):
        cosine_affinity(torch.zeros(0, 3, 3))
    with pytest.raises(ValueError, match=r"radius of at least 1 .*got 0"):
        cosine_affinity(torch.zeros(2, 3, 3), radius=0)
