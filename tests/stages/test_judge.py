import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.data.arrays import decode_scores, encode_cam
from raypipe.data.images import decode_mask, encode_png
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams

WALK: dict[str, Any] = {
    "affinity": "rgb",
    "checkpoint": None,
    "radius": 5,
    "alpha": 4.0,
    "beta": 8.0,
    "num_steps": 16,
    "count_padding": False,
    "precision": "fp32",
    "cam_stride": 4,
    "max_side": 1024,
}


@pytest.fixture(scope="module")
def square() -> bytes:
    """A red square (16..48 of 64 x 64 pixels) on black."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[16:48, 16:48, 0] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def mask_of(rows: slice, columns: slice) -> bytes:
    mask = np.zeros((64, 64), np.uint8)
    mask[rows, columns] = 2
    return encode_png(mask)


RIGHT = mask_of(slice(16, 48), slice(16, 48))
CUT = mask_of(slice(16, 32), slice(16, 48))


class Redness(torch.nn.Module):
    """Logits of two classes: the second is there to the degree to which the image is red; the first never."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        red = x[:, 0].clamp(min=0).mean(dim=(1, 2))
        return torch.stack([torch.full_like(red, -9), 10 * red - 3], dim=1)

    def classify(self, x: torch.Tensor) -> torch.Tensor:
        return self(x)


@pytest.fixture
def make_gate(classifier_uri: str) -> Any:
    def make(*, keep_better: bool) -> GateMasks:
        gate = GateMasks(checkpoint=classifier_uri, precision="fp32", max_side=1024, keep_better=keep_better)
        network = Redness()
        network.preprocessing = gate.network.preprocessing
        gate.network = network
        return gate

    return make


def cam_row(image: bytes, rows: slice, columns: slice) -> dict[str, Any]:
    cam = np.zeros((1, 16, 16), np.float32)
    cam[0, rows, columns] = 1
    return {"image": image, "cam": encode_cam(cam), "cam_height": 16, "cam_width": 16}


def test_a_walk_that_fills_the_object_parts_it_better(square: bytes) -> None:
    row = cam_row(square, slice(4, 10), slice(4, 12))  # three quarters of the square
    out = GateWalk(keep_better=False, **WALK).process(row)
    assert 0 < out["score_before"] < out["score_after"] == pytest.approx(1, abs=1e-3)
    plain = PropagateCams(**WALK).process(row)
    assert {name: out[name] for name in plain} == plain


@pytest.mark.parametrize("keep_better", [True, False])
def test_an_image_keeps_its_maps_where_the_walk_harms(square: bytes, *, keep_better: bool) -> None:
    """beta 0 walks across every edge: the square is lost."""
    row = cam_row(square, slice(4, 12), slice(4, 12))
    out = GateWalk(keep_better=keep_better, **{**WALK, "beta": 0.0, "num_steps": 256}).process(row)
    assert out["score_after"] < out["score_before"] == pytest.approx(1, abs=1e-3)
    start = PropagateCams(**{**WALK, "num_steps": 0}).process(row)
    assert (out["scores"] == start["scores"]) == keep_better


def test_walk_of_an_image_without_labels_is_not_judged(square: bytes) -> None:
    row = cam_row(square, slice(0, 1), slice(0, 1)) | {"cam": b"", "error_stage": None, "error_reason": None}
    (out,) = GateWalk(keep_better=True, **WALK).process_all([row])
    assert out.get("score_before") is None
    assert (decode_scores(out["scores"], height=8, width=8) == 1).all()


@pytest.mark.parametrize("keep_better", [True, False])
def test_masks_by_hand(make_gate: Any, square: bytes, *, keep_better: bool) -> None:
    """Redness of pixels: 2.249 in the square, none outside (normalised -2.118), -1.026 where they are filled.

    A quarter of the image is red: 10 * 2.249 / 4 - 3 = 2.62 where all of it shows, -3 where none does; half as much
    of the square, 2.81 - 3 = -0.19, where it is cut, shown or hidden.
    """
    gate = make_gate(keep_better=keep_better)
    row = {"image": square, "class_ids": [2], "mask": CUT, "walk_mask": RIGHT}
    out = gate.process(row)
    sure, none = torch.tensor([2.622, -3.0]).sigmoid().tolist()
    assert out["score_before"] == pytest.approx(sure - none, abs=1e-3)
    assert out["score_after"] == pytest.approx(0, abs=1e-5)
    assert out["mask"] == (RIGHT if keep_better else CUT)
    better = gate.process(row | {"mask": RIGHT, "walk_mask": CUT})
    assert better["mask"] == RIGHT


def test_a_class_that_the_refinement_lost_counts_against_it(make_gate: Any, square: bytes) -> None:
    row = {"image": square, "class_ids": [2], "mask": mask_of(slice(0), slice(0)), "walk_mask": CUT}
    out = make_gate(keep_better=True).process(row)
    assert out["score_after"] < 0
    assert decode_mask(out["mask"]).any()


def test_masks_without_labels_are_not_judged(make_gate: Any, square: bytes) -> None:
    mask = mask_of(slice(0), slice(0))
    out = make_gate(keep_better=True).process({"image": square, "class_ids": [], "mask": mask, "walk_mask": mask})
    assert out == {"mask": mask, "score_before": None, "score_after": None}


def test_sizes_that_are_no_multiple_of_8_and_a_real_network(classifier_uri: str, jpeg: bytes) -> None:
    gate = GateMasks(checkpoint=classifier_uri, precision="fp32", max_side=1024, keep_better=False)
    masks = [np.zeros((61, 83), np.uint8) for _ in range(2)]
    masks[0][10:40, 20:50], masks[1][30:, :40] = 1, 2
    row = {"image": jpeg, "class_ids": [1, 2], "mask": encode_png(masks[0]), "walk_mask": encode_png(masks[1])}
    out = gate.process(row)
    assert all(-1 <= out[name] <= 1 for name in ("score_before", "score_after"))
    assert gate.process(row) == out
