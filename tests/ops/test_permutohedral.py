from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raypipe.ops import permutohedral
from raypipe.ops.permutohedral import PIECE, build

Draw = Callable[..., Tensor]


@pytest.fixture
def draw(generator: torch.Generator) -> Draw:
    """Features of that many points, in a cube of that side."""

    def features(num_axes: int, num_points: int, *, side: float = 3.0) -> Tensor:
        return side * torch.rand(num_axes, num_points, generator=generator)

    return features


def exact(features: Tensor, values: Tensor) -> Tensor:
    """The filter by its definition, in float64."""
    points = features.double().T
    kernel = torch.exp(-torch.cdist(points, points).square() / 2)
    norm = kernel.sum(dim=1, keepdim=True).rsqrt()
    return norm * (kernel @ (norm * values.double()))


@pytest.mark.parametrize(("num_axes", "num_points"), [(1, 300), (2, 600), (3, 1000), (5, 2000)])
def test_it_comes_near_the_gaussian(draw: Draw, num_axes: int, num_points: int) -> None:
    """Of values that change slowly, as scores do."""
    features = draw(num_axes, num_points)
    values = torch.stack([features[0].sin().abs(), features.sum(dim=0).cos() + 1], dim=1)
    expected = exact(features, values)
    error = (build(features).filter(values) - expected).abs()
    assert error.mean() < 0.035 * expected.mean()
    assert error.max() < 0.12 * expected.max()


@pytest.mark.parametrize("num_axes", [1, 2, 5])
def test_what_normalises_is_kept(draw: Draw, num_axes: int) -> None:
    """By its definition: n K n (1 / n) = n (K 1) = 1 / n."""
    lattice = build(draw(num_axes, 500))
    kept = 1 / lattice.weights.sum(dim=0)[:, None]  # barycentric weights sum to 1
    torch.testing.assert_close(lattice.filter(kept), kept, rtol=1e-4, atol=0)


def test_a_constant_stays_where_all_points_have_equal_company() -> None:
    """Far from the border of a fine grid."""
    side = torch.arange(0, 12, 0.125)
    lattice = build(torch.stack([axis.flatten() for axis in torch.meshgrid(side, side, indexing="ij")]))
    filtered = lattice.filter(torch.full((side.numel() ** 2, 1), 0.7)).reshape(side.numel(), side.numel())
    inner = filtered[40:-40, 40:-40]
    torch.testing.assert_close(inner, torch.full_like(inner, 0.7), rtol=0.02, atol=0)


@pytest.mark.parametrize("num_points", [1, 3, PIECE, PIECE + 1, 5000])
def test_points_at_one_place_take_their_mean(draw: Draw, num_points: int) -> None:
    """K is a constant c, so n = (N c)^(-1/2) and n c n sums to the mean; their sum has many pieces."""
    values = draw(2, num_points).T.contiguous()
    filtered = build(torch.tensor([[0.3], [1.7], [-4.1]]).expand(3, num_points)).filter(values)
    torch.testing.assert_close(filtered, values.mean(dim=0).expand_as(values), rtol=1e-5, atol=1e-6)


def test_points_far_apart_keep_to_themselves() -> None:
    features = torch.tensor([[0.0, 100.0, -100.0, 0.0], [0.0, 0.0, 0.0, 100.0]])
    values = torch.eye(4)
    torch.testing.assert_close(build(features).filter(values), values, rtol=0, atol=1e-6)


def test_it_is_linear(draw: Draw) -> None:
    lattice, values = build(draw(5, 300)), draw(4, 300).T.contiguous()
    together = lattice.filter(values @ torch.tensor([[1.0], [2.0], [0.0], [-3.0]]))[:, 0]
    one, two, _, four = lattice.filter(values).T
    torch.testing.assert_close(together, one + 2 * two - 3 * four, rtol=1e-4, atol=1e-5)


def test_columns_are_filtered_each_by_itself(draw: Draw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit, however many go through at a time."""
    lattice, values = build(draw(5, 300)), draw(4, 300).T.contiguous()
    filtered = lattice.filter(values)
    alone = torch.cat([lattice.filter(values[:, column, None]) for column in range(4)], dim=1)
    assert torch.equal(filtered, alone)
    monkeypatch.setattr(permutohedral, "_MAX_ELEMENTS", 3 * 300 * 6)
    assert torch.equal(filtered, lattice.filter(values))
    assert lattice.filter(values[:, :0]).shape == (300, 0)


def test_the_order_of_the_points_does_not_matter(draw: Draw, generator: torch.Generator) -> None:
    features, values = draw(5, 300), draw(2, 300).T.contiguous()
    shuffled = torch.randperm(300, generator=generator)
    expected = build(features).filter(values)[shuffled]
    torch.testing.assert_close(build(features[:, shuffled]).filter(values[shuffled]), expected, rtol=1e-4, atol=1e-6)


def test_runs_give_equal_bytes(draw: Draw) -> None:
    features, values = draw(5, 2000, side=1.0), draw(3, 2000).T.contiguous()
    assert torch.equal(build(features).filter(values), build(features.clone()).filter(values.clone()))


class Operators(TorchDispatchMode):
    """Names of the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **kwargs or {})


def test_filtering_asks_the_device_for_nothing(draw: Draw) -> None:
    """No number, no size that depends on values, and no operator without a deterministic way on a card."""
    lattice, values = build(draw(5, 300)), draw(4, 300).T.contiguous()
    with Operators() as seen:
        lattice.filter(values)
    assert "segment_reduce" in seen.names
    assert not seen.names & {"_local_scalar_dense", "nonzero", "_unique2", "masked_select", "_to_copy"}
    assert not seen.names & {"index_add_", "scatter_add_", "scatter_reduce", "put_", "cumsum", "bincount"}


def test_convention_a_standard_deviation_is_1() -> None:
    """An impulse among points at equal distances spreads with variance 1."""
    features = torch.linspace(-4, 4, 801)[None]
    impulse = torch.zeros(801, 1)
    impulse[400] = 1
    filtered = build(features).filter(impulse)[:, 0]
    spread = (filtered * features[0].square()).sum() / filtered.sum()
    assert spread.sqrt().item() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.zeros(2, 0), r"at least one dimension and one point, got features \(2, 0\)"),
        (torch.zeros(0, 3), r"at least one dimension and one point, got features \(0, 3\)"),
        (torch.tensor([[0.0, torch.nan]]), "expected finite features"),
        (torch.tensor([[0.0, torch.inf]]), "expected finite features"),
        (1e6 * torch.eye(5), "span at most some thousands of standard deviations .* widen the Gaussian"),
    ],
)
def test_bad_features(features: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(features)


def test_as_wide_as_codes_allow() -> None:
    """1000 standard deviations in each of 5 dimensions."""
    values = torch.eye(5)
    torch.testing.assert_close(build(1000 * torch.eye(5)).filter(values), values, rtol=0, atol=1e-5)


@pytest.mark.gpu
def test_a_gpu_gives_the_same(draw: Draw) -> None:
    features, values = draw(5, 20_000, side=1.0), draw(3, 20_000).T.contiguous()
    first, again = (build(features.cuda()).filter(values.cuda()) for _ in range(2))
    assert torch.equal(first, again)
    torch.testing.assert_close(first.cpu(), build(features).filter(values), rtol=1e-3, atol=1e-5)


@pytest.mark.gpu
def test_filtering_never_waits_for_the_gpu(draw: Draw) -> None:
    lattice, values = build(draw(5, 1000).cuda()), draw(3, 1000).T.contiguous().cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        lattice.filter(values)
    finally:
        torch.cuda.set_sync_debug_mode("default")
