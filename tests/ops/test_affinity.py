import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops import affinity as module
from raypipe.ops.affinity import (
    affinity_labels,
    grid_pairs,
    pair_offsets,
    pairwise_affinity,
    rgb_affinity,
    within_radius,
)


def reference_affinity(features: torch.Tensor, radius: int) -> torch.Tensor:
    """The definition, one pair of cells at a time."""
    _, height, width = features.shape
    offsets = pair_offsets(radius).tolist()
    result = features.new_zeros(len(offsets), height, width)
    for k, (dy, dx) in enumerate(offsets):
        for y in range(height):
            for x in range(width):
                if y + dy < height and 0 <= x + dx < width:
                    distance = (features[:, y, x] - features[:, y + dy, x + dx]).abs().mean()
                    result[k, y, x] = torch.exp(-distance)
    return result


class TestPairOffsets:
    @pytest.mark.parametrize(("radius", "count"), [(1, 0), (2, 4), (3, 12), (5, 34), (10, 152)])
    def test_number_of_offsets(self, radius: int, count: int) -> None:
        assert pair_offsets(radius).shape == (count, 2)

    def test_convention_order(self) -> None:
        offsets = pair_offsets(5).tolist()
        assert offsets[:4] == [[0, 1], [0, 2], [0, 3], [0, 4]]
        assert offsets[4:13] == [[1, dx] for dx in range(-4, 5)]
        assert offsets[-5:] == [[4, dx] for dx in range(-2, 3)]
        assert pair_offsets(2).tolist() == [[0, 1], [1, -1], [1, 0], [1, 1]]

    @pytest.mark.parametrize(("height", "width", "count"), [(56, 56, 99_128), (47, 63, 93_314)])
    def test_every_in_radius_pair_once(self, height: int, width: int, count: int) -> None:
        pairs = grid_pairs(height, width, 5)
        starts = [(np.flatnonzero(pair.inside), pair.shift) for pair in pairs]
        cells = np.concatenate([np.stack([start, start + shift]) for start, shift in starts], axis=1)
        assert cells.shape[1] == count
        assert len(np.unique(cells, axis=1).T) == count
        (y0, x0), (y1, x1) = divmod(cells[0], width), divmod(cells[1], width)
        assert ((y0 - y1) ** 2 + (x0 - x1) ** 2 < 25).all()

    def test_read_only(self) -> None:
        with pytest.raises(ValueError, match="read-only"):
            pair_offsets(5)[0, 0] = 1

    def test_radius_too_small(self) -> None:
        with pytest.raises(ValueError, match=r"radius of at least 1 .*got 0"):
            pair_offsets(0)


class TestPairwiseAffinity:
    def test_convention_entry_belongs_to_the_first_cell_of_a_pair(self) -> None:
        features = torch.tensor([[[0.0, 1.0, 3.0], [7.0, 0.0, 0.0]]])
        affinity = pairwise_affinity(features, radius=2)
        e = math.exp
        assert affinity[0].tolist() == pytest.approx(np.array([[e(-1), e(-2), 0], [e(-7), 1, 0]]))  # (0, 1)
        assert affinity[1].tolist() == pytest.approx(np.array([[0, e(-6), e(-3)], [0, 0, 0]]))  # (1, -1)
        assert affinity[2].tolist() == pytest.approx(np.array([[e(-7), e(-1), e(-3)], [0, 0, 0]]))  # (1, 0)
        assert affinity[3].tolist() == pytest.approx(np.array([[1, e(-1), 0], [0, 0, 0]]))  # (1, 1)

    def test_mean_over_channels(self) -> None:
        features = torch.tensor([[[0.0, 1.0]], [[0.0, 5.0]]])
        assert pairwise_affinity(features, radius=2)[0, 0, 0].item() == pytest.approx(math.exp(-3))

    @settings(max_examples=25, deadline=None, derandomize=True)
    @given(st.integers(1, 11), st.integers(1, 11), st.sampled_from([1, 2, 3, 5]), st.integers(1, 4))
    def test_equals_the_definition(self, height: int, width: int, radius: int, channels: int) -> None:
        features = torch.randn(channels, height, width, generator=torch.Generator().manual_seed(height * 100 + width))
        torch.testing.assert_close(pairwise_affinity(features, radius=radius), reference_affinity(features, radius))

    @pytest.mark.parametrize("batch", [(), (2,), (2, 3), (0,)])
    def test_leading_batch_dimensions(self, batch: tuple[int, ...], generator: torch.Generator) -> None:
        features = torch.randn(*batch, 5, 6, 7, generator=generator)
        result = pairwise_affinity(features)
        assert result.shape == (*batch, 34, 6, 7)
        for index in np.ndindex(*batch):
            torch.testing.assert_close(result[index], pairwise_affinity(features[index]))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_half_precision_is_computed_in_float32(self, dtype: torch.dtype, generator: torch.Generator) -> None:
        features = torch.randn(16, 6, 7, generator=generator).to(dtype).requires_grad_()
        result = pairwise_affinity(features)
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, pairwise_affinity(features.float()))
        result.sum().backward()
        assert features.grad is not None
        assert features.grad.dtype == dtype

    def test_blocks_do_not_change_the_result(self, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        features = torch.randn(2, 9, 6, 7, generator=generator)
        whole = pairwise_affinity(features)
        monkeypatch.setattr(module, "_CACHE_BYTES", 2 * 6 * 7 * 4)
        torch.testing.assert_close(pairwise_affinity(features), whole)

    def test_gradient(self, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CACHE_BYTES", 2 * 4 * 5 * 8)
        features = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda f: pairwise_affinity(f, radius=3), features)

    def test_gradient_of_equal_cells_is_zero(self) -> None:
        features = torch.ones(4, 5, 5, requires_grad=True)
        pairwise_affinity(features).sum().backward()
        assert features.grad is not None
        assert not features.grad.any()

    def test_training_keeps_no_differences(self, generator: torch.Generator) -> None:
        features = torch.randn(1, 64, 16, 16, generator=generator, requires_grad=True)
        kept: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            pairwise_affinity(features)
        assert sum(kept) <= (64 + 34) * 16 * 16 * 4

    def test_no_channels(self) -> None:
        with pytest.raises(ValueError, match="at least one channel, got none"):
            pairwise_affinity(torch.zeros(0, 3, 3))

    def test_golden_walk(self, golden: Path) -> None:
        data = np.load(golden / "walk.npz")
        ours = pairwise_affinity(torch.from_numpy(data["features"]))[:, :20, 4:26]
        np.testing.assert_allclose(ours.reshape(-1), data["aff"], rtol=1e-5)

    def test_golden_vgg16(self, golden: Path) -> None:
        data = np.load(golden / "vgg16_aff.npz")
        ours = pairwise_affinity(torch.from_numpy(data["f"]))
        np.testing.assert_allclose(ours[:, :, :8, 4:12].reshape(1, 34, 64), data["aff"], rtol=1e-4)


class TestRgbAffinity:
    def test_equals_scaled_features(self, generator: torch.Generator) -> None:
        image = torch.rand(3, 5, 6, generator=generator)
        torch.testing.assert_close(rgb_affinity(image, scale=2.0), pairwise_affinity(2 * image))

    def test_scale_is_an_exponent(self, generator: torch.Generator) -> None:
        image = torch.rand(2, 3, 5, 6, generator=generator)
        torch.testing.assert_close(rgb_affinity(image, scale=4.0), rgb_affinity(image, scale=2.0) ** 2)


class TestWithinRadius:
    @pytest.mark.parametrize("radius", [1, 2, 4, 5])
    def test_it_is_the_affinity_of_that_radius(self, radius: int) -> None:
        features = torch.rand(3, 7, 9)
        far = pairwise_affinity(features, radius=5)
        torch.testing.assert_close(within_radius(far, radius=radius), pairwise_affinity(features, radius=radius))

    def test_pairs_that_are_farther_apart_are_not_there(self) -> None:
        with pytest.raises(ValueError, match="have the radius 3, and 4 was asked for"):
            within_radius(torch.rand(12, 4, 4), radius=4)


class TestAffinityLabels:
    def test_convention_truth_table(self) -> None:
        label = torch.tensor([[0, 0, 3, 3, 7, 255, 255, 0]], dtype=torch.uint8)
        bg_pos, fg_pos, neg = (mask[0, 0].tolist() for mask in affinity_labels(label, radius=2))
        assert bg_pos == [True, False, False, False, False, False, False, False]
        assert fg_pos == [False, False, True, False, False, False, False, False]
        assert neg == [False, True, False, True, False, False, False, False]

    def test_pairs_do_not_wrap_around_the_grid(self) -> None:
        counts = [mask.sum().item() for mask in affinity_labels(torch.zeros(6, 7, dtype=torch.uint8))]
        num_pairs = sum(max(0, 6 - dy) * max(0, 7 - abs(dx)) for dy, dx in pair_offsets(5).tolist())
        assert counts == [num_pairs, 0, 0]

    def test_batches_agree(self) -> None:
        labels = torch.from_numpy(np.random.default_rng(0).choice(np.array([0, 1, 2, 255], np.uint8), (2, 9, 8)))
        for i, label in enumerate(labels):
            for ours, batched in zip(affinity_labels(label), affinity_labels(labels), strict=True):
                assert ours.dtype == torch.bool
                torch.testing.assert_close(ours, batched[i])

    def test_empty_trimap(self) -> None:
        assert not any(mask.any() for mask in affinity_labels(torch.full((5, 5), 255, dtype=torch.uint8)))

    def test_golden(self, golden: Path) -> None:
        data = np.load(golden / "affinity_labels.npz")
        masks = affinity_labels(torch.from_numpy(data["label"]))
        for ours, name in zip(masks, ("bg", "fg", "neg"), strict=True):
            np.testing.assert_array_equal(ours[:, :16, 4:16].reshape(34, 192), data[name].astype(bool))
