"""The kernel in Triton's interpreter, which runs it on a CPU, and built by its compilers, which need no GPU."""

import dataclasses
import importlib
import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor

import raypipe.ops
from raypipe.ops import random_walk
from raypipe.ops.affinity import pair_offsets, pairwise_affinity
from raypipe.ops.random_walk import check_walked, propagate, propagate_at, propagate_batch

triton = pytest.importorskip("triton")

NAME = "raypipe.ops.stencil"
MAX_PRODUCTS = 200
"""Of an offset with all maps, in one test: the interpreter takes 1 to 3 ms for each, even if there are few cells."""
SIZES = [(7, 9), (1, 1), (4, 20), (12, 3), (7, 9), (1, 6)]


@pytest.fixture(scope="module")
def interpreted() -> Iterator[ModuleType]:
    """The module, imported so that its kernel is interpreted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRITON_INTERPRET", "1")
        patch.delitem(sys.modules, NAME, raising=False)
        module = importlib.import_module(NAME)
        patch.setattr(module, "TILE", (4, 1024))
        builder = importlib.import_module("triton.runtime.interpreter").interpreter_builder
        # Its checks for overflow take a third of the time, and grids of this size are far from any.
        patch.setattr(builder, "options", dataclasses.replace(builder.options, sanitize_overflow=False))
        yield module
    del sys.modules[NAME], raypipe.ops.stencil  # type: ignore[attr-defined]


@pytest.fixture
def stencil(interpreted: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The same, and `propagate` and `propagate_at` take it for a CPU's tensors, too."""
    monkeypatch.setattr(random_walk, "_has_stencil", lambda _: True)
    return interpreted


def random_image(
    rng: torch.Generator, num_maps: int, height: int, width: int, radius: int = 5
) -> tuple[Tensor, Tensor]:
    """Maps and affinities from 0 to 1, some of them missing, also where pairs would leave the grid."""
    affinity = torch.rand(len(pair_offsets(radius)), height, width, generator=rng)
    affinity *= torch.rand(affinity.shape, generator=rng) < 0.8
    return torch.rand(num_maps, height, width, generator=rng, dtype=torch.float64), affinity


def images(generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
    drawn = [random_image(generator, 1 + index % 5, *size, 2) for index, size in enumerate(SIZES)]
    return [cam for cam, _ in drawn], [affinity for _, affinity in drawn]


def by_cpu(cam: Tensor, affinity: Tensor, **options: object) -> Tensor:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(random_walk, "_has_stencil", lambda _: False)
        return propagate_at(cam, affinity, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(12))
def test_equals_the_walk_of_a_cpu_and_of_the_dense_matrix(
    stencil: ModuleType, seed: int, dense_transition: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(seed)
    radius, num_maps = int(draw.integers(2, 11)), int(draw.integers(1, 21))
    height, width = (int(np.exp(draw.uniform(0, np.log(side + 1)))) for side in (200, 120))
    if seed == 0:
        radius, num_maps, height, width = 5, 1, 200, 120
    beta = float(draw.choice([0.0, 1.0, 8.0]))
    cam, affinity = random_image(torch.Generator().manual_seed(seed), num_maps, height, width, radius)
    monkeypatch.setattr(stencil, "TILE", (triton.next_power_of_2(num_maps), 2**15 // triton.next_power_of_2(num_maps)))
    work = len(affinity) * (1 + cam.numel() / 50_000)
    num_steps = max(t for t in (1, 2, 5, 16, 64) if t == 1 or min(t, 9 * math.sqrt(t)) * work < MAX_PRODUCTS)
    walked = propagate(cam, affinity, beta=beta, num_steps=num_steps, tol=1e-13)
    expected = by_cpu(cam, affinity, beta=beta, steps=[num_steps], tol=1e-13)[0]
    np.testing.assert_allclose(walked, expected, rtol=0, atol=1e-13)
    if height * width <= 500:
        power = np.linalg.matrix_power(dense_transition(affinity, beta, radius), num_steps)
        np.testing.assert_allclose(walked.flatten(1).T, power @ cam.flatten(1).T.numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("steps", [[0], [5, 1]])
def test_company_changes_nothing(stencil: ModuleType, steps: list[int], generator: torch.Generator) -> None:
    cams, affinities = images(generator)
    together = random_walk._propagate_stencil(cams, affinities, beta=8.0, steps=steps, tol=1e-1)
    for cam, affinity, walked in zip(cams, affinities, together, strict=True):
        assert torch.equal(walked, propagate_at(cam, affinity, steps=steps, tol=1e-1))


def test_tiles_and_runs_change_nothing(
    stencil: ModuleType, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cam, affinity = random_image(generator, 3, 7, 9, 2)
    walked = propagate(cam, affinity, num_steps=6)
    assert torch.equal(walked, propagate(cam, affinity, num_steps=6))
    monkeypatch.setattr(stencil, "TILE", (2, 16))
    assert torch.equal(walked, propagate(cam, affinity, num_steps=6))


def test_each_step_equals_its_single_run(stencil: ModuleType, generator: torch.Generator) -> None:
    cam, affinity = random_image(generator, 3, 7, 9, 2)
    steps = [25, 0, 7, 1, 7]
    for t, walked in zip(steps, propagate_at(cam, affinity, steps=steps), strict=True):
        assert torch.equal(walked, propagate(cam, affinity, num_steps=t))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_lower_precision_is_that_of_the_input_and_the_result(
    stencil: ModuleType, dtype: torch.dtype, generator: torch.Generator
) -> None:
    cams, affinities = images(generator)
    cams, affinities = [cam.to(dtype) for cam in cams[:3]], [affinity.to(dtype) for affinity in affinities[:3]]
    cams[1] = cams[1].double()
    together = random_walk._propagate_stencil(cams, affinities, beta=8.0, steps=[9], tol=1e-5)
    for cam, affinity, walked in zip(cams, affinities, together, strict=True):
        assert walked.dtype == cam.dtype
        expected = by_cpu(cam.double(), affinity.double(), steps=[9])[0]
        torch.testing.assert_close(walked[0], expected.to(cam.dtype), rtol=torch.finfo(cam.dtype).eps, atol=1e-13)


def test_any_layout_and_no_side_effect(stencil: ModuleType, generator: torch.Generator) -> None:
    cam, affinity = random_image(generator, 3, 7, 9, 3)
    before = cam.clone(), affinity.clone()
    walked = propagate(cam.requires_grad_(), affinity, num_steps=5)
    assert not walked.requires_grad
    assert torch.equal(cam, before[0])
    assert torch.equal(affinity, before[1])
    turned = propagate(cam.detach().mT.contiguous().mT, affinity.mT.contiguous().mT, num_steps=5)
    assert torch.equal(walked, turned)


def test_images_without_maps_or_cells(stencil: ModuleType) -> None:
    cams = [torch.zeros(0, 4, 5), torch.zeros(2, 0, 5), torch.ones(1, 2, 2)]
    affinities = [torch.zeros(34, *cam.shape[1:]) for cam in cams]
    walked = random_walk._propagate_stencil(cams, affinities, beta=8.0, steps=[9], tol=1e-5)
    assert [maps.shape for maps in walked] == [(1, *cam.shape) for cam in cams]
    assert torch.equal(walked[2][0], cams[2])


@pytest.mark.parametrize("num_steps", [0, 4])
def test_an_affinity_out_of_range_makes_its_image_nan_and_no_other(
    stencil: ModuleType, num_steps: int, generator: torch.Generator
) -> None:
    cams, affinities = images(generator)
    good = list(zip(cams[1:3], affinities[1:3], strict=True))
    bad = []
    for value in (math.nan, math.inf, -0.1, 1.5):
        for start in (4, 8):  # the second one's pair leaves the grid
            affinity = affinities[0].clone()
            affinity[0, 3, start] = value
            bad.append((cams[0], affinity))
    drawn = [*bad[:4], good[0], *bad[4:], good[1]]
    walked = random_walk._walk_by_stencil(*zip(*drawn, strict=True), beta=8.0, steps=[num_steps], tol=1e-5)
    for (cam, affinity), maps in zip(drawn, walked, strict=True):
        if cam is cams[0]:
            assert maps.isnan().all()
            with pytest.raises(ValueError, match=r"NaN or infinity.*outside \[0, 1\]"):
                check_walked([maps])
        else:
            torch.testing.assert_close(maps, by_cpu(cam, affinity, steps=[num_steps]))
            check_walked([maps])


@pytest.mark.parametrize("num_steps", [0, 1, 4])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_maps_that_are_not_finite_do_not_stay_hidden(
    stencil: ModuleType, num_steps: int, value: float, generator: torch.Generator
) -> None:
    cams, affinities = images(generator)
    for index in (0, 1):  # the second has one cell
        cams[index][0, 0, 0] = value
    walked = random_walk._walk_by_stencil(cams[:3], affinities[:3], beta=8.0, steps=[num_steps], tol=1e-5)
    for maps in walked[:2]:
        with pytest.raises(ValueError, match="NaN or infinity"):
            check_walked([maps])
    check_walked(walked[2:])


def test_golden_walk_over_every_pair(stencil: ModuleType, golden: Path) -> None:
    data = np.load(golden / "walk.npz")
    affinity = pairwise_affinity(torch.from_numpy(data["features"]).double())
    walked = propagate(torch.from_numpy(data["bg_and_cam"]), affinity, num_steps=1, tol=1e-10)
    np.testing.assert_allclose(walked, data["full_b8_t1"], rtol=1e-8)


def test_many_steps_equal_those_of_a_cpu(stencil: ModuleType, generator: torch.Generator) -> None:
    """The golden walk of 256 steps took more than a quarter of this file's time; a CPU's equals it."""
    cam, affinity = random_image(generator, 3, 7, 9, 2)
    walked = propagate_at(cam, affinity, steps=[256], tol=1e-10)
    np.testing.assert_allclose(walked, by_cpu(cam, affinity, steps=[256], tol=1e-10), rtol=0, atol=1e-12)


@pytest.mark.parametrize("capability", [75, 80, 90])
def test_compiles_for_gpus(interpreted: ModuleType, capability: int) -> None:
    """One binary, whatever the numbers in the call; nothing in it depends on the order of threads."""
    kernel = triton.JITFunction(interpreted._step.fn)
    types = {"weights": "*fp64", "offsets": "*i32", "images": "*i64", "coefficients": "*fp64"}
    types |= dict.fromkeys(("lows", "highs", "poisons", "current", "previous", "sums"), "*fp64")
    types |= dict.fromkeys(("step", "max_terms", "num_sums", "num_values"), "i32")
    fixed = {"num_offsets": 34, "maps": 2, "cells": 128}
    source = triton.compiler.ASTSource(kernel, types | dict.fromkeys(fixed, "constexpr"), fixed)
    target = triton.backends.compiler.GPUTarget("cuda", capability, 32)
    assembly = triton.compile(source, target=target).asm["ptx"]
    assert "fma.rn.f64" in assembly
    assert ".f32" not in assembly
    assert "atom" not in assembly


@pytest.mark.gpu
class TestOnAGpu:
    @pytest.fixture
    def on_gpu(self, generator: torch.Generator) -> tuple[list[Tensor], list[Tensor]]:
        drawn = [random_image(generator, 1 + index % 5, *size) for index, size in enumerate([*SIZES, (47, 63)])]
        return [cam.cuda() for cam, _ in drawn], [affinity.cuda() for _, affinity in drawn]

    @pytest.mark.parametrize("kernels", [True, False])
    def test_equals_the_walk_of_a_cpu(
        self, on_gpu: tuple[list[Tensor], list[Tensor]], monkeypatch: pytest.MonkeyPatch, *, kernels: bool
    ) -> None:
        """Grids of one cell and one row are among them, which the sparse matrices have to manage, too."""
        assert random_walk._has_stencil(on_gpu[0][0].device)
        monkeypatch.setattr(random_walk, "_has_stencil", lambda device: kernels and device.type != "cpu")
        steps = [256, 0, 17]
        for cam, affinity, walked in zip(*on_gpu, propagate_batch(*on_gpu, steps=steps), strict=True):
            sweep = propagate_at(cam, affinity, steps=steps)
            expected = propagate_at(cam.cpu(), affinity.cpu(), steps=steps)
            torch.testing.assert_close(sweep.cpu(), expected, rtol=0, atol=1e-12)
            torch.testing.assert_close(walked.cpu(), expected, rtol=0, atol=1e-12)

    def test_neither_company_nor_runs_nor_other_steps_change_a_bit(
        self, on_gpu: tuple[list[Tensor], list[Tensor]]
    ) -> None:
        together = propagate_batch(*on_gpu)
        assert all(map(torch.equal, together, propagate_batch(*on_gpu)))
        for cam, affinity, walked in zip(*on_gpu, together, strict=True):
            assert torch.equal(walked[0], propagate(cam, affinity))
            assert torch.equal(walked[0], propagate_at(cam, affinity, steps=[9, 256])[1])

    @pytest.mark.parametrize("kernels", [True, False])
    def test_wrong_values_of_an_image_are_found_and_spoil_no_other(
        self, on_gpu: tuple[list[Tensor], list[Tensor]], monkeypatch: pytest.MonkeyPatch, *, kernels: bool
    ) -> None:
        monkeypatch.setattr(random_walk, "_has_stencil", lambda _: kernels)
        on_gpu[1][0][0, 0, 0] = 1.5
        on_gpu[0][2][0, 0, 0] = math.nan
        for index, walked in enumerate(propagate_batch(*on_gpu)):
            assert walked.isfinite().all() == (index not in (0, 2))
