import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.config import Trimaps
from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_mask
from raypipe.stages.trimaps import MakeTrimaps


def make_stage(splits: tuple[str, ...] | None = None, **options: Any) -> MakeTrimaps:
    return MakeTrimaps(
        splits=splits, trimaps=Trimaps(alpha_low=1.0, alpha_high=8.0, **options), cam_stride=4, max_side=1024
    )


@pytest.fixture
def row() -> dict[str, Any]:
    """An image of three stripes (61 x 84 pixels), and a map that follows them."""
    pixels = np.full((61, 84, 3), 128, np.uint8)
    pixels[:, :28], pixels[:, 56:] = (255, 0, 0), (0, 0, 255)
    image = io.BytesIO()
    Image.fromarray(pixels).save(image, format="PNG")
    cam = np.zeros((1, 16, 21), np.float32)
    cam[0, :, :7] = 1.0  # surely an object
    cam[0, :, 7:14] = 0.3  # an object under a weak background alone
    return {
        "image": image.getvalue(),
        "class_ids": [4],
        "split": "train",
        "cam": encode_cam(cam),
        "cam_height": 16,
        "cam_width": 21,
    }


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
@pytest.mark.parametrize("crf_stride", [1, 2, 4])
def test_sure_object_unsure_and_sure_background(row: dict[str, Any], crf_stride: int, refine: Any) -> None:
    trimap = decode_mask(make_stage(refine=refine, crf_stride=crf_stride).process(row)["trimap"])
    assert trimap.shape == (8, 11)
    assert (trimap[:, 0] == 4).all()
    assert (trimap[:, 5] == 255).all()
    assert (trimap[:, -1] == 0).all()


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
@pytest.mark.parametrize("crf_stride", [1, 2])
def test_a_trimap_of_strokes_labels_their_cells_alone(row: dict[str, Any], crf_stride: int, refine: Any) -> None:
    """A refinement spreads labels over all of a stripe; nobody has looked there."""
    cam = np.full((2, 16, 21), np.nan, np.float32)
    cam[:, 2:6, 2:4] = [[[1]], [[0]]]
    cam[:, 2:6, 18:20] = 0
    cam[0, 2:6, 10:12] = 0  # of the other class nothing is known here: it may be there
    row |= {"cam": encode_cam(cam), "class_ids": [4, 5]}
    trimap = decode_mask(make_stage(refine=refine, crf_stride=crf_stride).process(row)["trimap"])
    expected = np.full((8, 11), 255)
    expected[1:3, 1], expected[1:3, 9] = 4, 0
    np.testing.assert_array_equal(trimap, expected)


def test_splits_that_are_not_trained_on_get_none(row: dict[str, Any]) -> None:
    stage = make_stage(splits=("other",))
    assert stage.process(row) == {"trimap": None}
    assert stage.process(row | {"split": "other"})["trimap"] is not None


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
def test_image_without_labels_is_background(row: dict[str, Any], refine: Any) -> None:
    stage = make_stage(refine=refine)
    assert not decode_mask(stage.process(row | {"class_ids": [], "cam": b""})["trimap"]).any()
