"""Maps that are unknown in places: values by hand, and what must not depend on the grid that a maker chose."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from raypipe.ops.affinity import pair_offsets
from raypipe.ops.cam import Pass, background_score, merge_cams, pool_to_grid, stack_background
from raypipe.ops.random_walk import propagate_at
from raypipe.ops.trimap import hide_unknown
from raypipe.ops.unknown import evidence, fit_to_grid, has_blind_cells, known, sample_known

NAN = float("nan")


def test_evidence_by_hand() -> None:
    assert evidence(torch.tensor([[[0.5, NAN]]])).tolist() == [[[0.5, 0.0]]]
    assert known(torch.tensor([[[0.5, NAN]]])).tolist() == [[[True, False]]]


def test_a_cell_is_blind_where_nothing_is_known_of_any_class() -> None:
    assert has_blind_cells(torch.tensor([[[0.5, NAN]], [[NAN, NAN]]]))
    assert not has_blind_cells(torch.tensor([[[0.5, 0.5]], [[NAN, NAN]]])), "a class without a map"
    assert not has_blind_cells(torch.zeros(0, 1, 2))


def test_fine_maps_are_averaged_over_what_is_known_of_a_cell() -> None:
    """Cells of 4 pixels, maps of one: (1 + 0 + 1) / 3 in the first, nothing known in the second."""
    maps = torch.full((1, 4, 8), NAN)
    maps[0, 0, :3] = torch.tensor([1.0, 0.0, 1.0])
    (row,) = fit_to_grid(maps, size=(4, 8), stride=4)[0].tolist()
    assert row[0] == pytest.approx(2 / 3)
    assert np.isnan(row[1])


def test_the_last_cell_ends_with_the_image() -> None:
    """5 pixels, a cell of 4: the second has the fifth pixel alone."""
    maps = torch.tensor([[[0.0, 0.0, 0.0, 0.0, 1.0]]])
    assert fit_to_grid(maps, size=(1, 5), stride=4)[0].tolist() == [[0.0, 1.0]]


def test_a_stroke_of_one_pixel_is_never_missed() -> None:
    for column in range(16):
        maps = torch.full((1, 16, 16), NAN)
        maps[0, :, column] = 1
        found = fit_to_grid(maps, size=(16, 16), stride=4)
        assert known(found)[0].any(dim=0).tolist() == [cell == column // 4 for cell in range(4)]


def test_convention_a_grid_covers_the_whole_image() -> None:
    """A ramp along the columns has, in whatever grid, the values of its positions: cell j of w is at (j + 1/2) W/w."""
    for cells in (3, 8, 16, 40, 97):
        ramp = (torch.arange(cells) + 0.5) / cells
        found = fit_to_grid(ramp.expand(1, 5, cells), size=(16, 32), stride=4)[0, 0]
        expected = (torch.arange(8) + 0.5) / 8
        inside = (expected >= ramp[0]) & (expected <= ramp[-1])
        torch.testing.assert_close(found[inside], expected[inside], atol=0.5 / cells if cells > 8 else 1e-6, rtol=0)


def test_coarse_maps_are_interpolated_as_those_of_a_network() -> None:
    maps = torch.rand(2, 4, 6, generator=torch.Generator().manual_seed(0))
    expected = merge_cams([Pass(maps, (32, 48))], image_size=(32, 48), stride=8, out_stride=4)
    torch.testing.assert_close(fit_to_grid(maps, size=(32, 48), stride=4), expected)


def test_unknown_cells_of_a_coarse_map_end_where_they_end() -> None:
    maps = torch.tensor([[[1.0, NAN, 0.0]]])
    found = fit_to_grid(maps, size=(1, 24), stride=4)[0, 0]
    assert known(found).tolist() == [True, True, False, False, True, True]
    assert found[:2].tolist() == [1.0, 1.0]
    assert found[4:].tolist() == [0.0, 0.0]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([1, 4]),
    st.integers(0, 99),
)
def test_any_grid_fits_and_stays_within_its_values(
    height: int, width: int, rows: int, columns: int, stride: int, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(2, height, width, generator=generator)
    maps[torch.rand(maps.shape, generator=generator) < 0.3] = NAN
    found = fit_to_grid(maps, size=(rows, columns), stride=stride)
    assert found.shape == (2, -(-rows // stride), -(-columns // stride))
    for of_class, given_map in zip(found, maps, strict=True):
        there = of_class[known(of_class)]
        assert bool(known(of_class).any()) == bool(known(given_map).any())
        if len(there):
            assert there.min() >= given_map[known(given_map)].min() - 1e-5
            assert there.max() <= given_map[known(given_map)].max() + 1e-5
    whole = fit_to_grid(torch.ones(1, height, width), size=(rows, columns), stride=stride)
    torch.testing.assert_close(whole, torch.ones_like(whole))


def test_resizing_keeps_a_lonely_cell_and_no_more() -> None:
    maps = torch.full((1, 5, 5), NAN)
    maps[0, 2, 2] = 0.75
    found = sample_known(maps, size=(20, 20), stride=4)[0]
    cell = known(found)
    assert 4 <= int(cell.sum()) <= 16
    assert cell[8:12, 8:12].sum() == cell.sum()
    torch.testing.assert_close(found[cell], torch.full((int(cell.sum()),), 0.75))


def test_background_is_what_known_classes_leave() -> None:
    maps = torch.tensor([[[0.5, NAN, NAN]], [[0.25, 0.5, NAN]]])
    assert background_score(maps, alpha=2).tolist() == [[0.25, 0.25, 0.0]]
    assert stack_background(maps, alpha=1).tolist() == [[[0.5, 0.5, 0.0]], [[0.5, 0.0, 0.0]], [[0.25, 0.5, 0.0]]]


def test_zeros_choose_as_normalised_convolution_does_where_all_is_unknown_together() -> None:
    """A walk is linear: the same weights divide the scores of all classes at a cell."""
    generator = torch.Generator().manual_seed(0)
    maps = torch.rand(2, 6, 7, generator=generator, dtype=torch.float64)
    maps[:, torch.rand(6, 7, generator=generator) < 0.8] = NAN
    affinity = torch.rand(len(pair_offsets(2)), 6, 7, generator=generator, dtype=torch.float64)
    start, weight = stack_background(maps, alpha=2), known(maps)[:1].double()
    (scores,) = propagate_at(start, affinity, beta=1, steps=[30], tol=1e-9)
    (weights,) = propagate_at(weight, affinity, beta=1, steps=[30], tol=1e-9)
    assert (scores.argmax(dim=0) == (scores / weights).argmax(dim=0)).all()
    shares, normalised = (each / each.sum(dim=0) for each in (scores, scores / weights))
    torch.testing.assert_close(shares, normalised)


def test_where_classes_are_unknown_at_different_cells_the_nearer_one_wins() -> None:
    """Two strokes that say nothing of each other's class. Weighted means would be 1 for both, everywhere."""
    maps = torch.full((2, 1, 9), NAN, dtype=torch.float64)
    maps[0, 0, 0] = maps[1, 0, 8] = 1
    affinity = torch.ones(len(pair_offsets(2)), 1, 9, dtype=torch.float64)
    (scores,) = propagate_at(evidence(maps), affinity, beta=1, steps=[20], tol=1e-9)
    assert scores.argmax(dim=0)[0].tolist()[:4] == [0] * 4
    assert scores.argmax(dim=0)[0].tolist()[5:] == [1] * 4


def test_a_trimap_says_only_what_somebody_has_looked_at() -> None:
    """Columns: both classes known; class 5 known alone; nothing known; known of one pixel in a cell."""
    seen = torch.zeros(2, 2, 8, dtype=torch.bool)
    seen[:, :, :2] = True
    seen[0, :, 2:4] = True
    seen[:, 0, 6] = True
    for label, expected in ((0, [0, 255, 255, 0]), (5, [5, 5, 255, 5]), (9, [9, 255, 255, 9]), (255, [255] * 4)):
        trimap = np.full((1, 4), label, np.uint8)
        assert hide_unknown(trimap, seen, [5, 9], stride=2).tolist() == [expected]


def test_pooling_counts_what_is_unknown_as_no_evidence() -> None:
    stack = stack_background(torch.tensor([[[1.0, NAN]]]), alpha=1)
    assert pool_to_grid(stack, stride=2).flatten().tolist() == [0.0, 0.5]
