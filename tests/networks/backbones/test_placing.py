import pytest
import torch

from raypipe.networks.backbones.placing import place


def test_a_map_of_the_grids_own_stride_is_cropped_by_whole_cells() -> None:
    x = torch.arange(12.0).reshape(1, 1, 3, 4)
    assert torch.equal(place(x, (3, 4), stride=8, centre=3.5, output_stride=8), x)
    # Cell 1 looks at 8 - 5 = 3, half a pixel from the centre of cell 0 of the grid.
    assert torch.equal(place(x, (2, 3), stride=8, centre=-5.0, output_stride=8), x[..., 1:, 1:])


def test_half_a_cell_is_the_mean_of_two_and_edges_repeat() -> None:
    x = torch.tensor([[[[0.0, 4.0, 8.0]]]])
    assert place(x, (1, 3), stride=8, centre=-0.5, output_stride=8).tolist() == [[[[2.0, 6.0, 8.0]]]]


def test_patches_by_hand() -> None:
    """Patches of 16 on cells of 8: a cell lies a quarter of a patch from the patch's centre."""
    x = torch.tensor([[[[0.0, 4.0]]]])
    assert place(x, (2, 4), stride=16, centre=7.5, output_stride=8).tolist() == [[[[0.0, 1.0, 3.0, 4.0]] * 2]]


def test_finer_maps_are_averaged_over_a_triangle() -> None:
    x = torch.arange(16.0).reshape(1, 1, 1, 16)
    # Cell i lies between the finer cells 2i and 2i + 1; weights 1/4 1/4 beside 3/4 3/4, over 2.
    assert place(x, (1, 8), stride=4, centre=1.5, output_stride=8)[0, 0, 0, 1:-1].tolist() == pytest.approx(
        [2 * i + 0.5 for i in range(1, 7)]
    )


@pytest.mark.parametrize(("stride", "centre"), [(4, 1.5), (8, 7.5), (14, 6.5), (16, 7.5), (32, 0.0)])
def test_convention_a_ramp_of_positions_becomes_the_cells_centres(stride: int, centre: float) -> None:
    """A map that holds the pixels that its cells look at gives the centres of the grid's cells, away from edges."""
    at = stride * torch.arange(448 // stride, dtype=torch.float32) + centre
    found = place(at.expand(1, 1, 3, -1), (4, 56), stride=stride, centre=centre, output_stride=8)[0, 0, 0]
    expected = 8 * torch.arange(56.0) + 3.5
    inside = slice(4, -4)
    torch.testing.assert_close(found[inside], expected[inside], rtol=0, atol=1e-3)


def test_gradient() -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda each: place(each, (5, 6), stride=14, centre=6.5, output_stride=8), x)
