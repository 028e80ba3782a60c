import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from raypipe.data.arrays import encode_scores
from raypipe.data.images import decode_image, decode_mask
from raypipe.ops.pamr import pamr
from raypipe.stages.encode import EncodeMasks, sums_of_classes
from raypipe.stages.refine import RefineMasks, margin, refine


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


def mask_of(method: Any, row: dict[str, Any], **options: Any) -> dict[str, Any]:
    return RefineMasks(method=method, max_side=1024, **options).process(row)


def test_none_takes_the_best_score_and_the_datasets_ids(row: dict[str, Any]) -> None:
    out = mask_of("none", row)
    assert out["labels_array"].shape == (61, 83)
    assert out["labels_array"][30, [0, 50, 80]].tolist() == [0, 2, 7]
    assert out["walk_array"] is None


@pytest.mark.parametrize("method", ["dcrf", "pamr"])
def test_refinement_keeps_the_mask_before_it(row: dict[str, Any], method: Any) -> None:
    plain, out = mask_of("none", row), mask_of(method, row)
    np.testing.assert_array_equal(out["walk_array"], plain["labels_array"])
    np.testing.assert_array_equal(out["confidence_array"], plain["confidence_array"])
    assert set(np.unique(out["labels_array"])) <= {0, 2, 7}


def test_pamr_moves_an_edge_to_the_images() -> None:
    image = np.zeros((32, 48, 3), np.uint8)
    image[:, 30:] = 255
    scores = np.full((2, 4, 6), 0.3, np.float32)
    scores[0, :, :3], scores[1, :, 3:] = 0.7, 0.7  # the class begins at column 24, six columns before its edge
    row = {"image": encode_rgb(image), "class_ids": [5], "scores": encode_scores(scores)}
    row |= {"grid_height": 4, "grid_width": 6, "height": 32, "width": 48}
    out = mask_of("pamr", row)
    truth = np.where(image[..., 0] > 0, 5, 0)
    before, after = ((out[name] != truth).mean() for name in ("walk_array", "labels_array"))
    assert after < before / 3


def encode_rgb(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def test_a_large_power_keeps_the_walked_mask(row: dict[str, Any]) -> None:
    out = mask_of("dcrf", row, power=1000)
    assert (out["labels_array"] != out["walk_array"]).mean() < 0.01


def test_colours_count_as_the_compat_says(row: dict[str, Any]) -> None:
    followed, ignored = (mask_of("dcrf", row, compat_bilateral=compat)["labels_array"] for compat in (10, 0))
    assert (followed != ignored).any()


def test_background_alone(row: dict[str, Any]) -> None:
    row |= {"class_ids": [], "scores": encode_scores(np.ones((1, 8, 11), np.float32))}
    out = mask_of("dcrf", row)
    assert not out["labels_array"].any()
    assert not out["walk_array"].any()
    assert (out["confidence_array"] == 255).all()


def test_pamr_refines_several_stacks_as_if_each_alone(jpeg: bytes) -> None:
    pixels = decode_image(jpeg).pixels
    stacks = list(np.random.default_rng(0).random((2, 3, *pixels.shape[:2]), dtype=np.float32))
    image = torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255
    for refined, stack in zip(refine(pixels, stacks, "pamr"), stacks, strict=True):
        np.testing.assert_allclose(refined, pamr(image, torch.from_numpy(stack)[None])[0], atol=1e-6)


def test_encode_brings_back_the_original_size_and_sums_up() -> None:
    mask = np.zeros((4, 4), np.uint8)
    mask[:, 2:] = 5
    confidence = np.where(mask == 5, 51, 255).astype(np.uint8)
    row = {
        "labels_array": mask,
        "confidence_array": confidence,
        "walk_array": None,
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
    refined = mask_of("dcrf", row)
    out = EncodeMasks().process(refined | {"original_height": 61, "original_width": 83})
    for name, array in (("mask", "labels_array"), ("confidence", "confidence_array"), ("walk_mask", "walk_array")):
        np.testing.assert_array_equal(decode_mask(out[name]), refined[array])
    assert sum(out["areas"]) == pytest.approx(1)


def test_ignored_pixels_are_of_no_class() -> None:
    mask, confidence = np.array([[0, 255, 3, 3]], np.uint8), np.array([[255, 255, 0, 255]], np.uint8)
    assert sums_of_classes(mask, confidence) == {
        "class_ids": [0, 3],
        "areas": [0.25, 0.5],
        "mean_confidences": [1, 0.5],
    }
