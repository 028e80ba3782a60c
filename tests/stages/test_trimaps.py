import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_image, decode_mask
from raypipe.ops.cam import stack_background
from raypipe.ops.pamr import pamr
from raypipe.stages.trimaps import MakeTrimaps

ARGS: dict[str, Any] = {"alpha_low": 1.0, "alpha_high": 8.0, "crf_stride": 1, "max_side": 1024}


@pytest.fixture
def row(jpeg: bytes) -> dict[str, Any]:
    cam = np.zeros((1, 16, 21), np.float32)
    cam[0, :, :7] = 1.0  # surely an object
    cam[0, :, 7:14] = 0.3  # an object under a weak background alone
    return {
        "image": jpeg,
        "class_ids": [4],
        "split": "train",
        "cam": encode_cam(cam),
        "cam_height": 16,
        "cam_width": 21,
    }


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
@pytest.mark.parametrize("crf_stride", [1, 2, 4])
def test_sure_object_unsure_and_sure_background(row: dict[str, Any], crf_stride: int, refine: Any) -> None:
    bands = np.zeros((61, 83, 3), np.uint8)
    bands[:, 28:56, 1], bands[:, 56:, 2] = 255, 255  # so that the maps' edges are the image's
    buffer = io.BytesIO()
    Image.fromarray(bands).save(buffer, format="PNG")
    row |= {"image": buffer.getvalue()}
    stage = MakeTrimaps(splits=None, refine=refine, **{**ARGS, "crf_stride": crf_stride})
    trimap = decode_mask(stage.process(row)["trimap"])
    assert trimap.shape == (8, 11)
    assert (trimap[:, 0] == 4).all()
    assert (trimap[:, 5] == 255).all()
    assert (trimap[:, -1] == 0).all()


def test_splits_that_are_not_trained_on_get_none(row: dict[str, Any]) -> None:
    stage = MakeTrimaps(splits=["other"], **ARGS)
    assert stage.process(row) == {"trimap": None}
    assert stage.process(row | {"split": "other"})["trimap"] is not None


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
def test_image_without_labels_is_background(row: dict[str, Any], refine: Any) -> None:
    stage = MakeTrimaps(splits=None, refine=refine, **ARGS)
    assert not decode_mask(stage.process(row | {"class_ids": [], "cam": b""})["trimap"]).any()


def test_pamr_refines_both_stacks_as_if_each_alone(row: dict[str, Any], jpeg: bytes) -> None:
    stage = MakeTrimaps(splits=None, refine="pamr", **ARGS)
    pixels = decode_image(jpeg).pixels
    cams = torch.rand(2, *pixels.shape[:2])
    stacks = [stack_background(cams, alpha=alpha) for alpha in (1, 8)]
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    for refined, stack in zip(stage._refined(pixels, stacks), stacks, strict=True):
        np.testing.assert_allclose(refined, pamr(image, stack[None])[0], atol=1e-6)
