import base64
import io

import numpy as np
import pytest
from PIL import Image

from raypipe.reports.pictures import (
    MAX_SIDE,
    data_uri,
    draw_affinity,
    draw_cam,
    draw_mask,
    mean_affinity,
    palette,
    thumbnail,
)

GREY = np.full((40, 60, 3), 100, np.uint8)


class TestPalette:
    def test_value_voc(self):
        voc = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
        assert palette(20)[:5].tolist() == voc
        assert palette(20)[15].tolist() == [192, 128, 128]  # person
        assert palette(20)[20].tolist() == [0, 64, 128]  # tvmonitor

    def test_colours_are_distinct_and_never_white(self):
        colors = {tuple(color) for color in palette(254).tolist()}
        assert len(colors) == 255
        assert (255, 255, 255) not in colors

    def test_a_class_keeps_its_colour_when_classes_are_added(self):
        np.testing.assert_array_equal(palette(254)[:31], palette(30))

    def test_first_generated_colours_are_far_apart(self):
        colors = palette(40).astype(int)
        distances = np.abs(colors[:, None] - colors[None]).sum(axis=2) + 1000 * np.eye(len(colors), dtype=int)
        assert distances.min() >= 40

    @pytest.mark.parametrize("num_classes", [-1, 255])
    def test_exception(self, num_classes):
        with pytest.raises(ValueError, match=r"0\.\.254"):
            palette(num_classes)


class TestThumbnail:
    @pytest.mark.parametrize(
        ("size", "expected"), [((500, 1000), (160, 320)), ((1000, 500), (320, 160)), ((20, 30), (20, 30))]
    )
    def test_size(self, size, expected):
        assert thumbnail(np.zeros((*size, 3), np.uint8)).shape == (*expected, 3)

    def test_extreme_proportions_keep_a_pixel(self):
        assert thumbnail(np.zeros((1, 2000, 3), np.uint8)).shape == (1, MAX_SIDE, 3)


class TestDrawCam:
    def test_convention_strongest_class_gives_the_colour(self):
        cam = np.zeros((2, 10, 15), np.float32)
        cam[0, :, :7] = 1
        cam[1, :, 7:] = 1
        picture = draw_cam(GREY, cam, (1, 2))
        left, right = picture[20, 5].astype(int), picture[20, 55].astype(int)
        assert left[0] > left[1] + 80  # class 1 is dark red
        assert right[1] > right[0] + 80  # class 2 is dark green

    def test_no_heat_leaves_a_grey_photograph(self):
        picture = draw_cam(GREY, np.zeros((1, 10, 15), np.float32), (5,))
        assert len(np.unique(picture)) == 1

    def test_no_class(self):
        assert draw_cam(GREY, np.zeros((0, 1, 1), np.float32), ()).shape == GREY.shape


class TestMeanAffinity:
    def test_value_by_hand(self):
        # 1x3 cells, radius 2: offsets (0, 1), (1, -1), (1, 0), (1, 1); only (0, 1) fits the grid.
        affinity = np.zeros((4, 1, 3), np.float32)
        affinity[0] = [[0.2, 0.6, 0.0]]
        np.testing.assert_allclose(mean_affinity(affinity), [[0.2, 0.4, 0.6]], rtol=1e-6)

    def test_diagonals_by_hand(self):
        # 2x2 cells, every pair 1 but the one between (0, 1) and (1, 0), which starts at (0, 1).
        affinity = np.ones((4, 2, 2), np.float32)
        affinity[1, 0, 1] = 0.0
        np.testing.assert_allclose(mean_affinity(affinity), [[1, 2 / 3], [2 / 3, 1]], rtol=1e-6)

    def test_far_neighbours_do_not_count(self):
        affinity = np.zeros((34, 6, 6), np.float32)
        near = [0, 7, 8, 9]  # (0, 1); then after (0, 1..4) and (1, -4..-2): (1, -1), (1, 0), (1, 1)
        affinity[near] = 1
        np.testing.assert_array_equal(mean_affinity(affinity), np.ones((6, 6)))

    def test_no_neighbour(self):
        np.testing.assert_array_equal(mean_affinity(np.zeros((34, 1, 1), np.float32)), [[1]])

    def test_exception(self):
        with pytest.raises(ValueError, match="5 offsets"):
            mean_affinity(np.zeros((5, 3, 3), np.float32))


class TestDrawAffinity:
    def test_convention_boundaries_are_dark(self):
        affinity = np.ones((4, 5, 8), np.float32)
        affinity[0, :, 3] = 0  # between columns 3 and 4
        affinity[3, :, 3] = 0
        affinity[1, :, 4] = 0
        picture = draw_affinity(GREY, affinity, GREY.shape)
        assert picture.shape == GREY.shape
        assert picture[20, 30].mean() < 60 < 200 < picture[20, 5].mean()

    def test_grid_beyond_the_border_is_cut_off(self):
        # 40x60 pixels on a grid of 5x8 cells: the last column stands for pixels 56..63, of which 4 exist.
        affinity = np.ones((4, 5, 8), np.float32)
        affinity[0, :, 6] = 0
        whole = draw_affinity(np.zeros((40, 64, 3), np.uint8), affinity, (40, 64, 3))
        cut = draw_affinity(GREY, affinity, GREY.shape)
        np.testing.assert_allclose(cut[:, :50].astype(int), whole[:, :50].astype(int), atol=2)

    def test_constant_affinity(self):
        assert len(np.unique(draw_affinity(GREY, np.full((4, 5, 8), 0.5, np.float32), GREY.shape))) <= 2


class TestDrawMask:
    def test_convention_ignore_is_white_and_background_a_grey_photograph(self):
        mask = np.zeros((40, 60), np.uint8)
        mask[:, 20:40] = 255
        mask[:, 40:] = 1
        picture = draw_mask(GREY, mask)
        assert (picture[:, 20:40] == 255).all()
        assert len(np.unique(picture[:, :19])) == 1
        assert picture[0, 59, 0] > picture[0, 59, 1] + 60

    def test_a_grey_class_is_outlined(self):
        mask = np.zeros((40, 60), np.uint8)
        mask[10:30, 10:30] = 7
        picture = draw_mask(GREY, mask)
        assert picture[20, 9].max() < 60 < picture[20, 20].min()

    def test_mask_of_another_size(self):
        assert draw_mask(GREY, np.full((400, 600), 254, np.uint8)).shape == GREY.shape


def test_data_uri_is_webp():
    uri = data_uri(GREY)
    assert uri.startswith("data:image/webp;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert (image.format, image.size) == ("WEBP", (60, 40))
