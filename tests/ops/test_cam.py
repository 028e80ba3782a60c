import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from raypipe.ops.cam import (
    Pass,
    background_score,
    merge_cams,
    normalize_cams,
    pool_to_grid,
    resize_cam,
    sample_cam,
    stack_background,
    upsample_to_image,
)

SCALES = [1.0, 0.5, 1.5, 2.0]


def scaled_size(image_size: tuple[int, int], scale: float) -> tuple[int, int]:
    return round(image_size[0] * scale), round(image_size[1] * scale)


def seen_by_a_pass(
    function: Callable[[Tensor, Tensor], Tensor],
    image_size: tuple[int, int],
    *,
    scale: float,
    mirrored: bool,
    stride: int = 8,
) -> Tensor:
    """A map given as a function of image coordinates (y, x), as an exact network would see it in one pass."""
    height, width = scaled_size(image_size, scale)
    padded_height, padded_width = (-(-side // 8) * 8 for side in (height, width))
    y = (torch.arange(-(-padded_height // stride)) + 0.5) * stride
    x = (torch.arange(-(-padded_width // stride)) + 0.5) * stride
    if mirrored:
        x = padded_width - x
    return function(y[:, None] * image_size[0] / height, x[None, :] * image_size[1] / width)[None]


class TestResizeCam:
    def test_convention_align_corners_false(self) -> None:
        resized = resize_cam(torch.tensor([[0.0, 1.0]]), size=(1, 4))
        assert resized.tolist() == [pytest.approx([0, 0.25, 0.75, 1])]

    @pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
    def test_leading_dimensions(self, batch: tuple[int, ...]) -> None:
        assert resize_cam(torch.zeros(*batch, 4, 5), size=(7, 3)).shape == (*batch, 7, 3)


class TestSampleCam:
    @pytest.mark.parametrize(("stride", "side"), [(4.0, 9), (2.0, 13), (1.0, 5), (0.25, 7)])
    def test_convention_a_ramp_of_positions_becomes_the_pixels_centres(self, stride: float, side: int) -> None:
        """Wherever the side ends in its last cell."""
        cells = (torch.arange(math.ceil(side / stride)) + 0.5) * stride
        sampled = sample_cam(cells.expand(1, 2, -1), size=(3, side), stride=stride)[0, 0]
        torch.testing.assert_close(sampled, (torch.arange(side) + 0.5).clamp(cells[0], cells[-1]))

    def test_is_upsampling_where_cells_cover_the_image(self, generator: torch.Generator) -> None:
        cam = torch.rand(2, 3, 4, generator=generator)
        expected = upsample_to_image(cam, size=(11, 13), stride=4)
        torch.testing.assert_close(sample_cam(cam, size=(11, 13), stride=4), expected)

    def test_no_class(self) -> None:
        assert sample_cam(torch.zeros(0, 2, 3), size=(5, 9), stride=4).shape == (0, 5, 9)


class TestMergeCams:
    @pytest.mark.parametrize("mirrored", [False, True])
    @pytest.mark.parametrize("scale", SCALES)
    @pytest.mark.parametrize("image_size", [(96, 128), (375, 500), (97, 61)])
    @pytest.mark.parametrize("stride", [8, 16])
    def test_convention_a_ramp_stays_a_ramp(
        self, image_size: tuple[int, int], scale: float, mirrored: bool, stride: int
    ) -> None:
        """Bilinear sampling reproduces linear maps exactly, so any shift of the geometry shows."""

        def ramp(y: Tensor, x: Tensor) -> Tensor:
            return 0.1 * y - 0.3 * x

        cam = seen_by_a_pass(ramp, image_size, scale=scale, mirrored=mirrored, stride=stride)
        size = scaled_size(image_size, scale)
        merged = merge_cams([Pass(cam, size, mirrored)], image_size=image_size, stride=stride)
        assert merged.shape == (1, -(-image_size[0] // 4), -(-image_size[1] // 4))
        y = (torch.arange(merged.shape[1]) + 0.5) * 4
        x = (torch.arange(merged.shape[2]) + 0.5) * 4
        # Away from the border, where there is no cell centre beyond to interpolate with.
        margin = round(stride / scale)
        inside = (slice(None), *(slice(margin // 4 + 1, (side - margin) // 4) for side in image_size))
        torch.testing.assert_close(merged[inside], ramp(y[:, None], x[None])[None][inside], rtol=1e-4, atol=1e-3)

    @pytest.mark.parametrize("out_stride", [1, 2, 4, 8])
    def test_convention_scale_one_is_interpolation(self, out_stride: int, generator: torch.Generator) -> None:
        cam = torch.rand(3, 6, 9, generator=generator)
        merged = merge_cams([Pass(cam, (48, 72))], image_size=(48, 72), out_stride=out_stride)
        expected = F.interpolate(cam[None], scale_factor=8 / out_stride, mode="bilinear", align_corners=False)[0]
        torch.testing.assert_close(merged, expected)

    @pytest.mark.parametrize("width", [72, 67])
    def test_mirrored_pass_of_a_mirrored_map_is_the_map(self, width: int, generator: torch.Generator) -> None:
        """The mirror image is taken after padding, so flipping the grid undoes it whatever the width."""
        cam = torch.rand(3, 6, 9, generator=generator)
        plain, flipped = (
            merge_cams([Pass(c, (48, width), m)], image_size=(48, width))
            for c, m in ((cam, False), (cam.flip(-1), True))
        )
        torch.testing.assert_close(plain, flipped)

    def test_passes_are_summed(self, generator: torch.Generator) -> None:
        image_size = (37, 50)
        sizes = [scaled_size(image_size, scale) for scale in SCALES for _ in range(2)]
        passes = [
            Pass(torch.rand(2, -(-h // 8), -(-w // 8), generator=generator), (h, w), index % 2 == 1)
            for index, (h, w) in enumerate(sizes)
        ]
        merged = merge_cams(passes, image_size=image_size)
        one_by_one = sum(merge_cams([one], image_size=image_size) for one in passes)
        torch.testing.assert_close(merged, one_by_one)

    def test_no_class(self) -> None:
        merged = merge_cams([Pass(torch.zeros(0, 2, 2), (9, 9), mirrored=True)], image_size=(9, 9))
        assert merged.shape == (0, 3, 3)

    def test_wrong_grid(self) -> None:
        with pytest.raises(ValueError, match=r"grid of \(2, 3\) cells.*should be \(2, 2\)"):
            merge_cams([Pass(torch.zeros(1, 2, 3), (9, 16))], image_size=(9, 16))

    def test_no_pass(self) -> None:
        with pytest.raises(ValueError, match="at least one pass"):
            merge_cams([], image_size=(9, 9))


class TestNormalizeCams:
    def test_each_class_reaches_its_own_maximum(self) -> None:
        cams = torch.tensor([[[0.0, 2.0]], [[0.5, 0.25]], [[0.0, 0.0]]])
        expected = torch.tensor([[[0, 2 / (2 + 1e-5)]], [[0.5 / 0.50001, 0.25 / 0.50001]], [[0, 0]]])
        torch.testing.assert_close(normalize_cams(cams), expected)

    def test_no_class(self) -> None:
        assert normalize_cams(torch.zeros(0, 2, 3)).shape == (0, 2, 3)


class TestBackgroundScore:
    def test_hand_worked(self) -> None:
        cams = torch.tensor([[[0.5, 0.0]], [[0.2, 1.0]]])
        torch.testing.assert_close(background_score(cams, alpha=2), torch.tensor([[0.25, 0.0]]))

    def test_no_class_is_all_background(self) -> None:
        assert background_score(torch.zeros(0, 2, 3), alpha=4).tolist() == [[1, 1, 1]] * 2

    def test_rounding_above_one_gives_no_nan(self) -> None:
        assert background_score(torch.full((1, 1, 1), 1.001), alpha=1.5).item() == 0

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.floats(0.5, 40), st.floats(0.01, 20), st.integers(0, 2**16))
    def test_falls_as_alpha_grows(self, alpha: float, more: float, seed: int) -> None:
        cams = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(seed))
        assert (background_score(cams, alpha=alpha + more) <= background_score(cams, alpha=alpha)).all()

    @pytest.mark.parametrize("alpha", [0, -1.0])
    def test_alpha_out_of_range(self, alpha: float) -> None:
        with pytest.raises(ValueError, match="expected a positive alpha"):
            background_score(torch.zeros(1, 2, 2), alpha=alpha)

    def test_convention_stack_has_the_background_first(self, generator: torch.Generator) -> None:
        cams = torch.rand(3, 4, 5, generator=generator)
        stack = stack_background(cams, alpha=4)
        assert torch.equal(stack[0], background_score(cams, alpha=4))
        assert torch.equal(stack[1:], cams)


class TestPoolToGrid:
    def test_convention_real_pixels_only(self) -> None:
        scores = torch.arange(15.0).reshape(1, 3, 5)
        expected = [[3.0, 5.0, 6.5], [10.5, 12.5, 14.0]]
        assert pool_to_grid(scores, stride=2)[0].tolist() == [pytest.approx(row) for row in expected]

    def test_count_padding_averages_zeros_in(self) -> None:
        scores = torch.arange(15.0).reshape(1, 3, 5)
        expected = [[3.0, 5.0, 3.25], [5.25, 6.25, 3.5]]
        assert pool_to_grid(scores, stride=2, count_padding=True)[0].tolist() == [
            pytest.approx(row) for row in expected
        ]

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(st.integers(1, 30), st.integers(1, 30), st.sampled_from([1, 2, 4, 8]))
    def test_constant_stays_constant(self, height: int, width: int, stride: int) -> None:
        pooled = pool_to_grid(torch.full((2, height, width), 0.3), stride=stride)
        torch.testing.assert_close(pooled, torch.full((2, -(-height // stride), -(-width // stride)), 0.3))

    def test_two_strides_reach_the_same_grid_as_their_product(self) -> None:
        for side in range(1, 40):
            twice = pool_to_grid(pool_to_grid(torch.zeros(1, side, 3), stride=4), stride=2)
            assert twice.shape == pool_to_grid(torch.zeros(1, side, 3), stride=8).shape

    def test_no_class(self) -> None:
        assert pool_to_grid(torch.zeros(0, 9, 17), stride=8).shape == (0, 2, 3)


class TestUpsampleToImage:
    def test_convention_upsample_then_crop(self, generator: torch.Generator) -> None:
        maps = torch.rand(2, 3, 4, generator=generator)
        expected = F.interpolate(maps[None], size=(24, 32), mode="bilinear", align_corners=False)[0, :, :21, :29]
        assert torch.equal(upsample_to_image(maps, size=(21, 29)), expected)

    def test_wrong_grid(self) -> None:
        with pytest.raises(ValueError, match=r"has \(3, 4\) cells.*has \(2, 4\)"):
            upsample_to_image(torch.zeros(1, 3, 4), size=(16, 32))
