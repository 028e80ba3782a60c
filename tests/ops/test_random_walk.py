import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raypipe import ops
from raypipe.ops import random_walk, transition
from raypipe.ops.affinity import pair_offsets, pairwise_affinity
from raypipe.ops.random_walk import check_walked, propagate, propagate_at, propagate_batch

STEPS = [0, 1, 2, 3, 7, 16, 64, 255, 256, 1000]


def block_affinity(height: int, width: int) -> Tensor:
    """Affinity 1 inside 6 x 6 blocks, small between them: many equal edges, whose rounding errors would add up."""
    blocks = (torch.arange(height)[:, None] // 6 * 31 + torch.arange(width) // 6 * 17) % 5
    return pairwise_affinity(blocks.float()[None] * 0.7)


def random_affinity(height: int, width: int) -> Tensor:
    return pairwise_affinity(0.3 * torch.randn(16, height, width, generator=torch.Generator().manual_seed(1)))


def dense_walk(cams: Tensor, matrix: np.ndarray, num_steps: int) -> np.ndarray:
    flat = cams.double().reshape(len(cams), -1).numpy()
    return (np.linalg.matrix_power(matrix, num_steps) @ flat.T).T.reshape(cams.shape)


class TestPropagate:
    def test_hand_worked_two_cells(self) -> None:
        """W = 0.5, beta = 1: T = [[2/3, 1/3], [1/3, 2/3]], T^2 = [[5/9, 4/9], [4/9, 5/9]]."""
        affinity = torch.zeros(4, 1, 2)
        affinity[0, 0, 0] = 0.5
        cams = torch.tensor([[[1.0, 0.0]]])
        torch.testing.assert_close(propagate(cams, affinity, beta=1, num_steps=1), torch.tensor([[[2 / 3, 1 / 3]]]))
        torch.testing.assert_close(propagate(cams, affinity, beta=1, num_steps=2), torch.tensor([[[5 / 9, 4 / 9]]]))
        torch.testing.assert_close(propagate(cams, affinity, beta=2, num_steps=1), torch.tensor([[[4 / 5, 1 / 5]]]))

    def test_two_steps_on_3x3_equal_the_hand_squared_matrix(
        self, generator: torch.Generator, dense_transition: Callable
    ) -> None:
        cams, affinity = torch.rand(2, 3, 3, generator=generator), torch.rand(34, 3, 3, generator=generator)
        matrix = dense_transition(affinity, 8.0)
        squared = np.array([[sum(matrix[i, k] * matrix[k, j] for k in range(9)) for j in range(9)] for i in range(9)])
        expected = np.einsum("ij,kj->ki", squared, cams.double().reshape(2, 9).numpy()).reshape(2, 3, 3)
        np.testing.assert_allclose(propagate(cams.double(), affinity.double(), num_steps=2), expected, rtol=1e-12)

    def test_convention_rows_sum_to_one(self) -> None:
        """A well connected cell gives to, and an isolated cell keeps: averages stay, the total does not."""
        affinity = torch.zeros(4, 1, 3)
        affinity[0, 0, 0] = 1.0
        result = propagate(torch.tensor([[[0.0, 1.0, 5.0]]]), affinity, num_steps=50)
        torch.testing.assert_close(result, torch.tensor([[[0.5, 0.5, 5.0]]]))

    @pytest.mark.parametrize("num_steps", STEPS)
    @pytest.mark.parametrize("make", [block_affinity, random_affinity])
    def test_float64_equals_dense_powers(
        self, make: Callable, num_steps: int, generator: torch.Generator, dense_transition: Callable
    ) -> None:
        cams, affinity = torch.rand(3, 13, 14, generator=generator, dtype=torch.float64), make(13, 14).double()
        expected = dense_walk(cams, dense_transition(affinity, 8.0), num_steps)
        np.testing.assert_allclose(propagate(cams, affinity, num_steps=num_steps, tol=1e-10), expected, atol=1e-10)

    @pytest.mark.parametrize("make", [block_affinity, random_affinity])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_lower_precision_stays_within_tol(
        self, make: Callable, dtype: torch.dtype, generator: torch.Generator, dense_transition: Callable
    ) -> None:
        cams, affinity = (100 * torch.rand(3, 20, 21, generator=generator)).to(dtype), make(20, 21).to(dtype)
        result = propagate(cams, affinity)
        assert result.dtype == dtype
        expected = dense_walk(cams, dense_transition(affinity, 8.0), 256)
        error = np.abs(result.double().numpy() - expected).max() / cams.max().item()
        assert error <= 1e-5 + torch.finfo(dtype).eps / 2

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(
        st.integers(1, 9),
        st.integers(1, 9),
        st.sampled_from([2, 3, 5]),
        st.integers(0, 300),
        st.sampled_from([1e-2, 1e-4, 1e-8]),
        st.sampled_from([0.0, 1.0, 8.0, 50.0]),
        st.integers(0, 2**16),
    )
    def test_error_stays_within_its_bound(
        self, height: int, width: int, radius: int, t: int, tol: float, beta: float, seed: int
    ) -> None:
        rng = torch.Generator().manual_seed(seed)
        num_offsets = len(pair_offsets(radius))
        affinity = torch.rand(num_offsets, height, width, generator=rng, dtype=torch.float64)
        affinity *= torch.rand(affinity.shape, generator=rng) < 0.8
        cams = torch.randn(2, height, width, generator=rng, dtype=torch.float64)
        exact = propagate(cams, affinity, beta=beta, num_steps=t, tol=1e-13)
        rough = propagate(cams, affinity, beta=beta, num_steps=t, tol=tol)
        assert (rough - exact).abs().max() <= tol * cams.abs().max() + 1e-12
        assert (rough >= cams.amin((1, 2), keepdim=True)).all()
        assert (rough <= cams.amax((1, 2), keepdim=True)).all()

    def test_zero_steps_is_the_identity(self, generator: torch.Generator) -> None:
        cams = torch.rand(3, 6, 7, generator=generator)
        assert torch.equal(propagate(cams, random_affinity(6, 7), num_steps=0), cams)

    def test_identity_affinity_is_the_identity(self, generator: torch.Generator) -> None:
        cams = torch.rand(3, 6, 7, generator=generator)
        torch.testing.assert_close(propagate(cams, torch.zeros(34, 6, 7)), cams)

    def test_constant_map_is_a_fixed_point(self) -> None:
        cams = torch.tensor([0.3, -2.0]).reshape(2, 1, 1).expand(2, 12, 13)
        assert torch.equal(propagate(cams, block_affinity(12, 13), tol=0.5), cams)

    def test_components_do_not_mix(self, generator: torch.Generator) -> None:
        features = torch.zeros(1, 8, 12)
        features[..., 5:] = 1e4
        cams = torch.rand(2, 8, 12, generator=generator)
        cams[..., 5:] = 0
        result = propagate(cams, pairwise_affinity(features))
        assert not result[..., 5:].any()
        assert result[..., :5].min() > 0

    def test_beta_near_zero_makes_neighbours_equal(self, dense_transition: Callable) -> None:
        affinity = random_affinity(6, 7)
        affinity[3] = 0
        cams = torch.rand(2, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
        uniform = dense_walk(cams, dense_transition((affinity > 0).double(), 1.0), 3)
        for beta in (0.0, 1e-12):
            np.testing.assert_allclose(propagate(cams, affinity, beta=beta, num_steps=3), uniform, rtol=1e-9)

    def test_large_beta_leaves_only_self_transitions(self, generator: torch.Generator) -> None:
        cams = torch.rand(2, 6, 7, generator=generator)
        affinity = random_affinity(6, 7).clamp(max=0.99)
        torch.testing.assert_close(propagate(cams, affinity, beta=1e6), cams)

    def test_entries_outside_the_grid_are_ignored(self, generator: torch.Generator) -> None:
        cams, affinity = torch.rand(2, 6, 10, generator=generator), torch.rand(34, 6, 10, generator=generator)
        inside = pairwise_affinity(torch.zeros(1, 6, 10)) > 0
        assert torch.equal(propagate(cams, affinity), propagate(cams, affinity * inside))

    def test_maps_are_independent_and_any_layout_will_do(self, generator: torch.Generator) -> None:
        cams, affinity = torch.rand(9, 8, 3, generator=generator).permute(2, 1, 0), random_affinity(8, 9)
        together = propagate(cams, affinity)
        assert torch.equal(together[1:2], propagate(cams[1:2], affinity))

    def test_no_gradient_and_no_side_effect(self, generator: torch.Generator) -> None:
        cams = torch.rand(2, 5, 6, generator=generator, dtype=torch.float64, requires_grad=True)
        affinity = random_affinity(5, 6).double().requires_grad_()
        before = cams.detach().clone(), affinity.detach().clone()
        assert not propagate(cams, affinity).requires_grad
        assert torch.equal(cams, before[0])
        assert torch.equal(affinity, before[1])

    @pytest.mark.parametrize("shape", [(0, 4, 5), (2, 0, 5)])
    def test_nothing_to_walk(self, shape: tuple[int, int, int]) -> None:
        assert propagate(torch.zeros(shape), torch.zeros(34, *shape[1:])).shape == shape

    def test_one_cell(self) -> None:
        assert propagate(torch.full((2, 1, 1), 0.7), torch.zeros(34, 1, 1)).tolist() == pytest.approx(
            np.full((2, 1, 1), 0.7)
        )

    def test_path_of_accelerators_gives_the_same(
        self, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        cams, affinity = torch.rand(4, 17, 19, generator=generator), block_affinity(17, 19)
        by_diagonals = propagate_at(cams, affinity, steps=[1, 256])
        monkeypatch.setattr(transition, "_diagonal_transition", transition._compressed_transition)
        torch.testing.assert_close(propagate_at(cams, affinity, steps=[1, 256]), by_diagonals, rtol=0, atol=1e-7)

    def test_unknown_number_of_offsets(self) -> None:
        with pytest.raises(ValueError, match=r"33 offsets.*34 \(radius 5\)"):
            propagate(torch.zeros(1, 4, 4), torch.zeros(33, 4, 4))

    def test_grids_differ(self) -> None:
        with pytest.raises(ValueError, match=r"grid of \(4, 5\) cells and affinity on \(5, 4\)"):
            propagate(torch.zeros(1, 4, 5), torch.zeros(34, 5, 4))

    def test_other_radius_follows_from_the_offsets(self, dense_transition: Callable) -> None:
        cams = torch.rand(1, 6, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
        affinity = pairwise_affinity(torch.rand(4, 6, 7, generator=torch.Generator().manual_seed(3)), radius=3)
        expected = dense_walk(cams, dense_transition(affinity, 8.0, 3), 5)
        np.testing.assert_allclose(propagate(cams, affinity, num_steps=5), expected, atol=1e-10)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"beta": -1.0}, "finite beta of at least 0 .*got -1"),
            ({"beta": math.inf}, "finite beta of at least 0 .*got inf"),
            ({"num_steps": -1}, "at least 0"),
            ({"tol": 0.0}, "tol between 0 and 1.*got 0"),
        ],
    )
    def test_values_out_of_range(self, arguments: dict, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            propagate(torch.zeros(1, 4, 4), torch.zeros(34, 4, 4), **arguments)

    @pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
    def test_affinity_out_of_range(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"have to lie in \[0, 1\]"):
            propagate(torch.zeros(1, 4, 4), torch.full((34, 4, 4), value))

    def test_cams_not_finite(self) -> None:
        with pytest.raises(ValueError, match="expected finite cams"):
            propagate(torch.full((1, 4, 4), math.nan), torch.zeros(34, 4, 4))


class TestPropagateAt:
    def test_each_step_equals_its_single_run_bit_by_bit(self, generator: torch.Generator) -> None:
        cams, affinity = torch.rand(3, 11, 12, generator=generator), random_affinity(11, 12)
        steps = [256, 0, 17, 1, 64, 17]
        sweep = propagate_at(cams, affinity, beta=4.0, steps=steps)
        assert sweep.shape == (6, 3, 11, 12)
        for t, result in zip(steps, sweep, strict=True):
            assert torch.equal(result, propagate(cams, affinity, beta=4.0, num_steps=t))

    def test_one_expansion_serves_all_steps(self, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
        cams, affinity = torch.rand(1, 11, 12, generator=generator), random_affinity(11, 12)
        calls: list[int] = []
        build = transition._diagonal_transition

        def counting(*arguments: object) -> tuple[transition.Product, Tensor]:
            product, root = build(*arguments)  # type: ignore[arg-type]

            def counted(maps: Tensor) -> Tensor:
                calls.append(1)
                return product(maps)

            return counted, root

        monkeypatch.setattr(transition, "_diagonal_transition", counting)
        propagate_at(cams, affinity, steps=[256])
        single = len(calls)
        propagate_at(cams, affinity, steps=[1, 4, 16, 64, 256])
        assert single < 100
        assert len(calls) == 2 * single

    def test_no_steps(self) -> None:
        assert propagate_at(torch.zeros(2, 3, 4), torch.zeros(34, 3, 4), steps=[]).shape == (0, 2, 3, 4)


SIZES = [(17, 19), (1, 1), (4, 30), (12, 3), (17, 19)]


class TestPropagateBatch:
    @pytest.fixture
    def images(self, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        cams = [torch.rand(1 + index % 3, *size, generator=generator) for index, size in enumerate(SIZES)]
        return cams, [block_affinity(*size) for size in SIZES]

    def test_each_image_equals_its_single_run(self, images: tuple[list[Tensor], list[Tensor]]) -> None:
        for cam, affinity, walked in zip(*images, propagate_batch(*images, beta=4.0, steps=[100, 0, 7]), strict=True):
            assert torch.equal(walked, propagate_at(cam, affinity, beta=4.0, steps=[100, 0, 7]))

    @pytest.mark.parametrize("steps", [[0], [1, 256, 0, 7]])
    def test_path_of_accelerators_gives_the_same(
        self, images: tuple[list[Tensor], list[Tensor]], steps: list[int]
    ) -> None:
        batch = random_walk._propagate_blocks(*images, beta=8.0, steps=steps, tol=1e-5)
        for cam, affinity, walked in zip(*images, batch, strict=True):
            torch.testing.assert_close(walked, propagate_at(cam, affinity, steps=steps), rtol=0, atol=1e-7)
            assert torch.equal(walked[steps.index(0)], cam)

    def test_company_changes_nothing(self, images: tuple[list[Tensor], list[Tensor]]) -> None:
        options = {"beta": 8.0, "steps": [64], "tol": 1e-2}
        together = random_walk._propagate_blocks(*images, **options)
        for cam, affinity, walked in zip(*images, together, strict=True):
            assert torch.equal(random_walk._propagate_blocks([cam], [affinity], **options)[0], walked)

    def test_images_without_maps_or_cells(self) -> None:
        cams = [torch.zeros(0, 4, 5), torch.zeros(2, 0, 5), torch.ones(1, 2, 2)]
        affinities = [torch.zeros(34, *cam.shape[1:]) for cam in cams]
        for walk in (propagate_batch, random_walk._propagate_blocks):
            walked = walk(cams, affinities, beta=8.0, steps=[9], tol=1e-5)  # type: ignore[operator]
            assert [maps.shape for maps in walked] == [(1, *cam.shape) for cam in cams]
        assert propagate_batch([], []) == []

    def test_counts_differ(self) -> None:
        with pytest.raises(ValueError, match="cams and affinities of the same images, got 1 and 0"):
            propagate_batch([torch.zeros(1, 4, 4)], [])

    def test_radii_differ(self) -> None:
        cams = [torch.zeros(1, 4, 4)] * 2
        with pytest.raises(ValueError, match=r"\[12, 34\] offsets"):
            propagate_batch(cams, [torch.zeros(34, 4, 4), torch.zeros(12, 4, 4)])

    @pytest.mark.gpu
    def test_on_a_gpu(self, images: tuple[list[Tensor], list[Tensor]]) -> None:
        batch = propagate_batch([cam.cuda() for cam in images[0]], [affinity.cuda() for affinity in images[1]])
        for cam, affinity, walked in zip(*images, batch, strict=True):
            torch.testing.assert_close(walked[0].cpu(), propagate(cam, affinity), rtol=0, atol=1e-7)


class TestCheckWalked:
    def test_finite_maps_and_none_pass(self) -> None:
        check_walked([])
        check_walked([torch.ones(1, 2, 3), torch.zeros(4, 1, 1), torch.ones(2, 2, 3).sum()])

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_one_value_that_is_not_finite(self, value: float) -> None:
        with pytest.raises(ValueError, match=r"NaN or infinity.*affinities aren't or lie outside \[0, 1\]"):
            check_walked([torch.zeros(2, 3, 4), torch.tensor([[[0.0, value]]])])


class TestWithoutTriton:
    def test_an_accelerator_multiplies_by_sparse_matrices_and_says_so(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setitem(sys.modules, "triton", None)
        monkeypatch.delitem(sys.modules, "raypipe.ops.stencil", raising=False)
        monkeypatch.delitem(vars(ops), "stencil", raising=False)  # A look by its name would import it.
        with caplog.at_level(logging.WARNING):
            assert not random_walk._has_stencil.__wrapped__(torch.device("meta"))
        assert "on meta multiplies by sparse matrices, as Triton builds no kernel: import of triton" in caplog.text

    def test_a_cpu_needs_none(self, caplog: pytest.LogCaptureFixture) -> None:
        assert not random_walk._has_stencil.__wrapped__(torch.device("cpu"))
        assert not caplog.text


class TestGolden:
    """The walk of the authors' released code and of the same walk over every pair, both in float64."""

    def test_every_pair(self, golden: Path) -> None:
        data = np.load(golden / "walk.npz")
        cams = torch.from_numpy(data["bg_and_cam"])
        affinity = pairwise_affinity(torch.from_numpy(data["features"]).double())
        walked = propagate_at(cams, affinity, steps=[1, 256], tol=1e-10)
        np.testing.assert_allclose(walked[0], data["full_b8_t1"], rtol=1e-8)
        np.testing.assert_allclose(walked[1], data["full_b8_t256"], rtol=1e-8)

    def test_pairs_of_the_released_code(self, golden: Path) -> None:
        data = np.load(golden / "walk.npz")
        affinity = pairwise_affinity(torch.from_numpy(data["features"]).double())
        known = torch.zeros_like(affinity)
        known[:, : 24 - 4, 4 : 30 - 4] = 1
        walked = propagate(torch.from_numpy(data["bg_and_cam"]), affinity * known, tol=1e-10)
        np.testing.assert_allclose(walked, data["rw_b8_t256"], rtol=1e-6, atol=1e-8)
