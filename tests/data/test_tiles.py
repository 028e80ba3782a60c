from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raypipe.data.tiles import tiles_of

SIDES = st.integers(1, 700)


@given(height=SIDES, width=SIDES, side=st.sampled_from([64, 128, 192, 256]))
def test_every_cell_of_every_grid_belongs_to_one_tile(height: int, width: int, side: int) -> None:
    for stride in (1, 4, 8):
        size = -(-height // stride), -(-width // stride)
        owners = np.zeros(size, int)
        positions = np.arange(size[0] * size[1]).reshape(size)
        for tile in tiles_of(height, width, side):
            owners[tile.kept(stride)] += 1
            of_tile = positions[tile.window(stride)]
            assert of_tile.shape == (-(-tile.height // stride), -(-tile.width // stride))
            assert np.array_equal(of_tile[tile.inside(stride)], positions[tile.kept(stride)])
        assert (owners == 1).all()


@given(height=SIDES, width=SIDES, side=st.sampled_from([64, 128, 256]))
def test_tiles_begin_at_cells_and_are_no_larger_than_asked_for(height: int, width: int, side: int) -> None:
    tiles = list(tiles_of(height, width, side))
    assert all(span.start % 8 == 0 and span.end - span.start <= side for tile in tiles for span in tile)
    assert sum(tile.share for tile in tiles) == height * width
    assert max(tile.rows.end for tile in tiles) == height


@given(length=st.integers(1, 6000), side=st.sampled_from([64, 128, 256, 512, 1024, 2048]))
def test_a_cut_between_neighbours_lies_a_margin_inside_both(length: int, side: int) -> None:
    spans = [tile.columns for tile in tiles_of(64, length, side)]
    for before, after in pairwise(spans):
        assert before.kept_end == after.kept_start
        assert min(before.end - before.kept_end, after.kept_start - after.start) >= min(128, side // 4) - 8


def test_by_hand() -> None:
    spans = [tile.columns for tile in tiles_of(10, 300, 128)]
    # A step of 64; the last window begins at the first multiple of 8 from which 128 pixels reach the end.
    assert [(span.start, span.end) for span in spans] == [(0, 128), (64, 192), (128, 256), (176, 300)]
    assert [(span.kept_start, span.kept_end) for span in spans] == [(0, 96), (96, 160), (160, 216), (216, 300)]
    assert str(next(tiles_of(10, 300, 128))) == "the tile of rows 0 to 10 and columns 0 to 128"


@pytest.mark.parametrize("side", [0, -64, 60, 100])
def test_sides_that_split_cells_are_refused(side: int) -> None:
    with pytest.raises(ValueError, match="a positive multiple of 64, got"):
        next(tiles_of(100, 100, side))
