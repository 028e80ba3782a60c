import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.data.arrays import encode_scores
from raypipe.data.images import decode_mask, encode_png
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.refine import RefineMasks, margin


@pytest.fixture
def row(jpeg: bytes) -> dict[str, Any]:
    scores = np.full((3, 8, 11), 0.1, np.float32)
    scores[0, :, :4] = 0.8
    scores[1, :, 4:8] = 0.8
    scores[2, :, 8:] = 0.8
    return {
        "image": jpeg,
        "class_ids": [2, 7],
        "scores": encode_scores(scores),
        "grid_height": 8,
        "grid_width": 11,
        "height": 61,
        "width": 83,
        "original_height": 122,
        "original_width": 166,
    }


def test_margin_by_hand() -> None:
    scores = np.array([[[0.6, 1.0]], [[0.2, 1.0]], [[0.2, 0.0]]], np.float32)
    np.testing.assert_array_equal(margin(scores), [[102, 0]])
    np.testing.assert_array_equal(margin(scores[:1]), 255)
    np.testing.assert_array_equal(margin(np.zeros((2, 1, 1), np.float32)), 0)


def test_none_takes_the_best_score_and_the_datasets_ids(row: dict[str, Any]) -> None:
    out = RefineMasks(method="none", max_side=1024).process(row)
    mask = decode_mask(out["mask"])
    assert mask.shape == (61, 83)
    assert mask[30, [0, 50, 80]].tolist() == [0, 2, 7]
    assert out["walk_mask"] is None


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
def test_refinement_keeps_the_mask_before_it(row: dict[str, Any], method: Any) -> None:
    plain = RefineMasks(method="none", max_side=1024).process(row)
    out = RefineMasks(method=method, max_side=1024).process(row)
    assert out["walk_mask"] == plain["mask"]
    assert out["confidence"] == plain["confidence"]
    assert set(np.unique(decode_mask(out["mask"]))) <= {0, 2, 7}


def test_pamr_moves_an_edge_to_the_images() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 30:] = 255
    scores = np.full((2, 4, 6), 0.3, np.float32)
    scores[0, :, :3], scores[1, :, 3:] = 0.7, 0.7  # the class begins at column 24, six columns before its edge
    row = {"image": encode_rgb(image), "class_ids": [5], "scores": encode_scores(scores)}
    row |= {"grid_height": 4, "grid_width": 6, "height": 32, "width": 48}
    stage = RefineMasks(method="pamr", max_side=1024)
    out = stage.process(row)
    truth = np.where(image[..., 0] > 0, 5, 0)
    before, after = ((decode_mask(out[name]) != truth).mean() for name in ("walk_mask", "mask"))
    assert after < before / 3


def encode_rgb(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_large_power_keeps_the_walked_mask(row: dict[str, Any]) -> None:
    out = RefineMasks(method="dcrf", power=1000, max_side=1024).process(row)
    changed = decode_mask(out["mask"]) != decode_mask(out["walk_mask"])
    assert changed.mean() < 0.01


def test_a_weaker_pull_of_colours_changes_less(row: dict[str, Any]) -> None:
    def changed(**options: float) -> float:
        out = RefineMasks(method="dcrf", max_side=1024, **options).process(row)
        return float((decode_mask(out["mask"]) != decode_mask(out["walk_mask"])).mean())

    assert changed(compat_bilateral=0.5) < changed(compat_bilateral=10.0) == changed()


def test_background_alone(row: dict[str, Any]) -> None:
    row |= {"class_ids": [], "scores": encode_scores(np.ones((1, 8, 11), np.float32))}
    out = RefineMasks(method="dcrf", max_side=1024).process(row)
    assert not decode_mask(out["mask"]).any()
    assert (decode_mask(out["confidence"]) == 255).all()


def test_encode_brings_back_the_original_size_and_sums_up() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 2:] = 5
    confidence = np.where(mask == 5, 51, 255).astype(np.uint8)
    row = {
        "mask": encode_png(mask),
        "confidence": encode_png(confidence),
        "walk_mask": None,
        "original_height": 8,
        "original_width": 8,
    }
    out = EncodeMasks().process(row)
    full = decode_mask(out["mask"])
    assert full.shape == (8, 8)
    assert (full[:, 4:] == 5).all()
    assert out["class_ids"] == [0, 5]
    assert out["areas"] == [0.5, 0.5]
    assert out["mean_confidences"][0] > 0.9
    assert 0.2 <= out["mean_confidences"][1] < 0.35  # 51 / 255, mixed with its neighbours at the edge
    assert (out["height"], out["width"]) == (8, 8)
    assert out["walk_mask"] is None


def test_encode_at_the_same_size_is_exact(row: dict[str, Any]) -> None:
    refined = RefineMasks(method="dcrf", max_side=1024).process(row)
    out = EncodeMasks().process(refined | {"original_height": 61, "original_width": 83})
    np.testing.assert_array_equal(decode_mask(out["mask"]), decode_mask(refined["mask"]))
    np.testing.assert_array_equal(decode_mask(out["walk_mask"]), decode_mask(refined["walk_mask"]))
    assert sum(out["areas"]) == pytest.approx(1)
