import io
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from raypipe.data.images import encode_png
from raypipe.networks import build_segmenter
from raypipe.networks.segmenter import Segmenter
from raypipe.training.validation import Validation


class LeftHalf(Segmenter):
    """Finds class 1 in the left half of whatever it sees."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert not self.training
        logits = torch.zeros(1, 2, x.shape[2] // 8, x.shape[3] // 8)
        logits[:, 1, :, : logits.shape[3] // 2] = 1
        logits[:, 1, :, logits.shape[3] // 2 :] = -1
        return logits


def feed(rank: int, world_size: int) -> Iterator[pa.Table]:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 32)).save(buffer, format="PNG")
    truth = np.zeros((32, 64), np.uint8)
    truth[:16, :32] = 1
    truth[0] = 255
    row = {"image_id": "a", "image": buffer.getvalue(), "mask": encode_png(truth), "error_stage": None}
    broken = {"image_id": "b", "image": None, "mask": None, "error_stage": "DecodeImages", "error_reason": "no PNG"}
    yield pa.Table.from_pylist([row | {"error_reason": None}, broken])


def test_mean_iou_of_whole_images(caplog: pytest.LogCaptureFixture) -> None:
    network = LeftHalf(build_segmenter("tiny", head="lraspp", num_classes=1).backbone, head="lraspp", num_classes=1)
    validation = Validation(feed=feed, num_classes=2, max_side=1024, precision="fp32")
    object_iou, background_iou = 15 / 31, (31 * 32) / (31 * 32 + 16 * 32)
    found = validation.mean_iou(network, 0, 1)
    assert network.training
    assert found == pytest.approx((object_iou + background_iou) / 2)
    assert "validation leaves out b: no PNG" in caplog.text
