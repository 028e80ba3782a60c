from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.config import Trimaps
from raypipe.data.arrays import encode_cam
from raypipe.data.images import decode_image, decode_mask
from raypipe.stages.trimaps import MakeTrimaps
from raypipe.stages.trimaps_on_device import MakeTrimapsOnDevice


@pytest.fixture
def row(jpeg: bytes) -> dict[str, Any]:
    """A map that follows the brightness of a photograph-like image."""
    grey = Image.fromarray(decode_image(jpeg).pixels).convert("L").resize((21, 16))
    cam = np.stack([np.asarray(grey) / 255, 0.3 * np.ones((16, 21))]).astype(np.float32)
    return {
        "image": jpeg,
        "class_ids": [4, 7],
        "split": "train",
        "cam": encode_cam(cam),
        "cam_height": 16,
        "cam_width": 21,
    }


def make_stages(splits: tuple[str, ...] | None = None, **options: Any) -> tuple[MakeTrimaps, MakeTrimapsOnDevice]:
    trimaps = Trimaps(alpha_low=1.0, alpha_high=8.0, **options)
    on_cpu, on_device = (
        stage(splits=splits, trimaps=trimaps, cam_stride=4, max_side=1024)
        for stage in (MakeTrimaps, MakeTrimapsOnDevice)
    )
    on_device.setup("cpu")
    return on_cpu, on_device  # type: ignore[return-value]


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
@pytest.mark.parametrize("crf_stride", [1, 4])
def test_trimaps_are_those_of_the_cpu(row: dict[str, Any], refine: Any, crf_stride: int) -> None:
    expected, found = (
        decode_mask(stage.process(row)["trimap"]) for stage in make_stages(refine=refine, crf_stride=crf_stride)
    )
    assert found.shape == (8, 11)
    assert len(np.unique(expected)) > 1
    assert (found == expected).mean() > 0.98


@pytest.mark.parametrize("refine", ["dcrf", "pamr"])
def test_image_without_labels_is_background(row: dict[str, Any], refine: Any) -> None:
    _, stage = make_stages(refine=refine)
    assert not decode_mask(stage.process(row | {"class_ids": [], "cam": b""})["trimap"]).any()


def test_splits_that_are_not_trained_on_get_none(row: dict[str, Any]) -> None:
    for stage in make_stages(splits=("other",)):
        assert stage.process(row | {"image": b"not looked at"}) == {"trimap": None}
        assert stage.process(row | {"split": "other"})["trimap"] is not None
