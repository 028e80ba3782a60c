import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.data.arrays import decode_labels, encode_scores
from raypipe.data.images import decode_image
from raypipe.ops import mean_field
from raypipe.stages.refine import RefineMasks, refine
from raypipe.stages.refine_on_device import RefineOnDevice, refine_on_device


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def row() -> dict[str, Any]:
    """A noisy image of two colours that meet at column 30; the scores' classes meet at column 24."""
    image = np.random.default_rng(0).integers(0, 30, (32, 48, 3), dtype=np.uint8)
    image[:, 30:] += 200
    scores = np.full((3, 4, 6), 0.1, np.float32)
    scores[0, :, :3], scores[2, :, 3:] = 0.6, 0.6
    return {
        "image": png(image),
        "class_ids": [3, 9],
        "scores": encode_scores(scores),
        "grid_height": 4,
        "grid_width": 6,
        "height": 32,
        "width": 48,
    }


def make_stage(method: Any = "dcrf", **options: Any) -> RefineOnDevice:
    stage = RefineOnDevice(**{"method": method, "power": 1.0, "max_side": 1024, **options})
    stage.setup("cpu")
    return stage


def on_device(row: dict[str, Any], method: Any, **options: Any) -> dict[str, Any]:
    refined = make_stage(method, **options).process(row)
    without_image = {name: value for name, value in row.items() if name != "image"}
    return RefineMasks(method="given", max_side=1024).process(without_image | refined)


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
@pytest.mark.parametrize("options", [{}, {"power": 3.0}, {"compat_bilateral": 2.0}], ids=str)
def test_masks_are_those_of_the_cpu(row: dict[str, Any], method: Any, options: dict[str, Any]) -> None:
    expected = RefineMasks(method=method, max_side=1024, **options).process(row)
    found = on_device(row, method, **options)
    assert (found["labels_array"] == expected["labels_array"]).mean() > 0.999
    for name in ("confidence_array", "walk_array"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert (found["labels_array"] != found["walk_array"]).any()


def test_labels_travel_as_small_bytes(row: dict[str, Any]) -> None:
    refined = make_stage().process(row)["refined"]
    labels = decode_labels(refined, height=32, width=48)
    assert set(np.unique(labels)) == {0, 9}
    assert (labels[:, 30:] == 9).mean() > 0.99
    assert len(refined) < labels.size / 4


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
def test_background_alone_needs_no_pixels(method: Any) -> None:
    row = {"image": b"no image", "class_ids": [], "scores": encode_scores(np.ones((1, 4, 6), np.float32))}
    row |= {"grid_height": 4, "grid_width": 6, "height": 32, "width": 48}
    assert make_stage(method).process(row) == {"refined": None}
    found = on_device(row, method)
    assert not found["labels_array"].any()
    assert (found["confidence_array"] == 255).all()


def test_a_row_in_error_holds_up_nobody(row: dict[str, Any]) -> None:
    broken = row | {"image": b"no image"}
    wrong = row | {"scores": encode_scores(np.full((3, 4, 6), np.nan, np.float32))}
    done = make_stage().process_all([row, broken, wrong, row | {"error_stage": "DecodeImages"}])
    assert [each.get("error_stage") for each in done] == [None, "RefineOnDevice", "RefineOnDevice", "DecodeImages"]
    assert done[0]["refined"]
    assert "expected finite scores" in done[2]["error_reason"]


def test_what_does_not_fit_into_memory_is_tried_again_and_quarantined(
    row: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a card that the lattice of all but a small image fills."""
    build, sizes = mean_field.build, []

    def filling(features: torch.Tensor) -> Any:
        sizes.append(features.shape[1])
        if features.shape[1] > 1000:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return build(features)

    monkeypatch.setattr(mean_field, "build", filling)
    small = row | {"image": png(decode_image(row["image"]).pixels[:16, :16])}
    small |= {"scores": encode_scores(np.full((3, 2, 2), 0.5, np.float32)), "grid_height": 2, "grid_width": 2}
    large, fits = make_stage().process_all([row, small])
    assert "an image of 32 x 48 pixels (height x width) doesn't fit" in large["error_reason"]
    assert sizes.count(32 * 48) == 2
    assert fits["refined"]


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
@pytest.mark.parametrize("stride", [1, 4])
def test_several_stacks_are_refined_as_on_the_cpu(jpeg: bytes, method: Any, stride: int) -> None:
    pixels = decode_image(jpeg).pixels
    stacks = np.random.default_rng(0).random((2, 3, *pixels.shape[:2]), dtype=np.float32) + 0.1
    expected = np.stack(refine(pixels, list(stacks), method, stride=stride))
    found = refine_on_device(torch.from_numpy(pixels), torch.from_numpy(stacks), method, stride=stride).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-2)
    assert np.abs(found - expected).mean() < 1e-4
