import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_scores, encode_cam
from raypipe.data.images import decode_mask, encode_png
from raypipe.ops.walk_choice import WalkChoice
from raypipe.stages.base import Row
from raypipe.stages.encode import sums_of_classes
from raypipe.stages.judge import GateMasks, GateWalk
from raypipe.stages.propagate import PropagateCams

WALK: dict[str, Any] = {
    "affinity": None,
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


def masks_gate(classifier: str, *, keep_better: bool) -> GateMasks:
    gate = GateMasks(
        classifier=Artifact(classifier, "c"),
        classes=("cat", "dog"),
        keep_better=keep_better,
        max_side=1024,
        precision="fp32",
    )
    gate.setup("cpu")
    return gate


def walk_gate(choice: WalkChoice, **changes: Any) -> GateWalk:
    gate = GateWalk(walk=PropagateCams(**{**WALK, **changes}), choice=choice)
    gate.setup("cpu")
    return gate


def propagate(row: Row, **changes: Any) -> Row:
    stage = PropagateCams(**{**WALK, **changes})
    stage.setup("cpu")
    return stage.process(row)


def mask_row(image: bytes, labels: list[str], *, mask: bytes, walk_mask: bytes) -> Row:
    """A row with encoded masks, surely right everywhere."""
    array = decode_mask(mask)
    confidence = np.full_like(array, 255)
    height, width = decode_mask(mask).shape
    columns = {"image": image, "labels": labels, "mask": mask, "walk_mask": walk_mask}
    columns |= {"original_height": height, "original_width": width}
    return columns | {"confidence": encode_png(confidence)} | sums_of_classes(array, confidence)


@pytest.fixture
def make_gate(classifier_uri: str) -> Any:
    def make(*, keep_better: bool) -> GateMasks:
        gate = masks_gate(classifier_uri, keep_better=keep_better)
        network = Redness()
        network.preprocessing = gate.network.preprocessing
        gate.network = network
        return gate

    return make


def cam_row(image: bytes, rows: slice, columns: slice) -> dict[str, Any]:
    cam = np.zeros((1, 16, 16), np.float32)
    cam[0, rows, columns] = 1
    return {"image": image, "cam": encode_cam(cam), "class_ids": [1], "cam_height": 16, "cam_width": 16}


def test_a_walk_that_fills_the_object_parts_it_better(square: bytes) -> None:
    row = cam_row(square, slice(4, 10), slice(4, 12))  # three quarters of the square
    out = walk_gate("given").process(row)
    assert 0 < out["walk_before"] < out["walk_after"] == pytest.approx(1, abs=1e-3)
    plain = propagate(row)
    assert {name: out[name] for name in plain} == plain
    assert (out["walk_alpha"], out["walk_steps"]) == (4, 16)


@pytest.mark.parametrize("choice", ["any", "longer", "given"])
def test_an_image_takes_no_walk_where_every_walk_harms(square: bytes, *, choice: WalkChoice) -> None:
    """beta 0 walks across every edge: the square is lost."""
    row = cam_row(square, slice(4, 12), slice(4, 12))
    out = walk_gate(choice, beta=0.0, num_steps=256).process(row)
    assert out["walk_after"] < out["walk_before"] == pytest.approx(1, abs=1e-3)
    assert (out["walk_alpha"], out["walk_steps"]) == (4, 0 if choice == "any" else 256)
    start = propagate(row, num_steps=0)
    assert (out["scores"] == start["scores"]) == (choice == "any")


def test_an_image_whose_maps_flood_it_takes_more_background(square: bytes) -> None:
    """Outside the square the map is 0.4: there the background is 0.6^4 = 0.13, 0.6^2 = 0.36 or 0.6."""
    cam = np.full((1, 16, 16), 0.4, np.float32)
    cam[0, 4:12, 4:12] = 0.9
    row = cam_row(square, slice(0), slice(0)) | {"cam": encode_cam(cam)}
    plain, out = (walk_gate(choice).process(row) for choice in ("given", "any"))
    assert plain["walk_before"] == plain["walk_after"] == 0, "all is object"
    scores = decode_scores(out["scores"], height=8, width=8)
    red = np.zeros((8, 8), bool)
    red[2:6, 2:6] = True
    np.testing.assert_array_equal(scores.argmax(axis=0) == 1, red)
    assert (out["walk_alpha"], out["walk_steps"]) == (1, 16), "the given number of steps, as none is better"
    assert out["predicted_iou"] > plain["predicted_iou"]
    assert out == plain | {name: out[name] for name in ("scores", "predicted_iou", "walk_alpha")}


def test_an_image_takes_the_given_walk_unless_another_is_better(square: bytes) -> None:
    row = cam_row(square, slice(4, 12), slice(4, 12))  # all walks find the square
    assert walk_gate("any").process(row) == walk_gate("given").process(row)


@pytest.mark.parametrize("choice", ["any", "longer", "given"])
def test_a_walk_from_a_few_strokes_is_kept_unjudged(square: bytes, *, choice: WalkChoice) -> None:
    """Before it there is no mask. The same walk is rejected where the maps are known everywhere."""
    cam = np.full((1, 16, 16), np.nan, np.float32)
    cam[0, 4:12, 4:12], cam[0, 0], cam[0, :, 0] = 1, 0, 0
    row = {"image": square, "class_ids": [1], "cam": encode_cam(cam), "cam_height": 16, "cam_width": 16}
    options: dict[str, Any] = {"beta": 0.0, "num_steps": 256}
    out = walk_gate(choice, **options).process(row)
    assert (out["walk_before"], out["walk_after"]) == (None, None)
    assert out["scores"] == propagate(row, **options)["scores"]


def test_images_that_share_a_pass_choose_as_if_they_were_alone(square: bytes) -> None:
    stroke = np.full((1, 16, 16), np.nan, np.float32)
    stroke[0, 4:12, 4:12] = 1
    rows = [
        cam_row(square, slice(4, 10), slice(4, 12)),
        cam_row(square, slice(0, 1), slice(0, 1)) | {"class_ids": [], "cam": b""},
        cam_row(square, slice(0), slice(0)) | {"cam": encode_cam(stroke)},
        cam_row(square, slice(0, 16), slice(0, 9)),
    ]
    fine: dict[str, Any] = {"error_stage": None, "error_reason": None}
    gate = walk_gate("any")
    gate.pixels_per_pass = 10**6
    together = gate.process_all([row | fine for row in rows])
    names = gate.writes.names
    alone = walk_gate("any")
    assert [[one[name] for name in names] for one in together] == [
        [found[name] for name in names] for found in map(alone.process, rows)
    ]


@pytest.mark.parametrize("choice", ["any", "longer", "given"])
def test_a_walk_that_gave_nan_is_an_error_also_where_the_maps_before_it_are_taken(
    square: bytes, monkeypatch: pytest.MonkeyPatch, *, choice: WalkChoice
) -> None:
    def spoiled(cams: Sequence[torch.Tensor], *_: object, steps: Sequence[int], **__: object) -> list[torch.Tensor]:
        return [torch.stack([cam * (torch.nan if t else 1) for t in steps]) for cam in cams]

    monkeypatch.setattr("raypipe.stages.propagate.propagate_batch", spoiled)
    with pytest.raises(ValueError, match="the walk gave NaN or infinity"):
        walk_gate(choice).process(cam_row(square, slice(4, 10), slice(4, 12)))


def test_walk_of_an_image_without_labels_is_not_judged(square: bytes) -> None:
    row = cam_row(square, slice(0, 1), slice(0, 1)) | {"cam": b"", "error_stage": None, "error_reason": None}
    (out,) = walk_gate("any").process_all([row])
    assert out["walk_before"] is out["walk_after"] is out["walk_alpha"] is out["walk_steps"] is None
    assert (decode_scores(out["scores"], height=8, width=8) == 1).all()


@pytest.mark.parametrize("keep_better", [True, False])
def test_masks_by_hand(make_gate: Any, square: bytes, *, keep_better: bool) -> None:
    """Redness of pixels: 2.249 in the square, none outside (normalised -2.118), -1.026 where they are filled.

    A quarter of the image is red: 10 * 2.249 / 4 - 3 = 2.62 where all of it shows, -3 where none does; half as much
    of the square, 2.81 - 3 = -0.19, where it is cut, shown or hidden.
    """
    gate = make_gate(keep_better=keep_better)
    out = gate.process(mask_row(square, ["dog"], mask=CUT, walk_mask=RIGHT))
    sure, none = torch.tensor([2.622, -3.0]).sigmoid().tolist()
    assert out["refined_before"] == pytest.approx(sure - none, abs=1e-3)
    assert out["refined_after"] == pytest.approx(0, abs=1e-5)
    assert out["mask"] == (RIGHT if keep_better else CUT)
    assert out["class_ids"] == [0, 2]
    assert out["areas"] == ([0.75, 0.25] if keep_better else [0.875, 0.125])
    assert out["mean_confidences"] == [1, 1]
    better = gate.process(mask_row(square, ["dog"], mask=RIGHT, walk_mask=CUT))
    assert (better["mask"], better["areas"]) == (RIGHT, [0.75, 0.25])


def test_a_class_that_the_refinement_lost_counts_against_it(make_gate: Any, square: bytes) -> None:
    row = mask_row(square, ["dog"], mask=mask_of(slice(0), slice(0)), walk_mask=CUT)
    out = make_gate(keep_better=True).process(row)
    assert out["refined_after"] < 0
    assert decode_mask(out["mask"]).any()


def test_masks_without_labels_are_not_judged(make_gate: Any, square: bytes) -> None:
    mask = mask_of(slice(0), slice(0))
    out = make_gate(keep_better=True).process(mask_row(square, [], mask=mask, walk_mask=mask))
    sums = {"class_ids": [0], "areas": [1], "mean_confidences": [1]}
    assert out == {"mask": mask, "refined_before": None, "refined_after": None, **sums}


def test_sizes_that_are_no_multiple_of_8_and_a_real_network(classifier_uri: str, jpeg: bytes) -> None:
    gate = masks_gate(classifier_uri, keep_better=False)
    masks = [np.zeros((61, 83), np.uint8) for _ in range(2)]
    masks[0][10:40, 20:50], masks[1][30:, :40] = 1, 2
    row = mask_row(jpeg, ["cat", "dog"], mask=encode_png(masks[0]), walk_mask=encode_png(masks[1]))
    out = gate.process(row)
    assert all(-1 <= out[name] <= 1 for name in ("refined_before", "refined_after"))
    assert gate.process(row) == out
