from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raypipe.data.images import decode_mask, encode_png
from raypipe.ops.calibration import confidence_counts
from raypipe.stages.base import Row
from raypipe.stages.calibrate_masks import CalibrateMasks, CountHits, add_counts

MASK = np.array([[0, 0, 2, 2]], np.uint8)
CONFIDENCE = np.array([[0, 100, 100, 255]], np.uint8)
PROBABILITY = np.interp(np.arange(256), [0, 100, 255], [0.2, 0.6, 1.0])


@pytest.fixture
def row(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "truth.png").write_bytes(encode_png(np.array([[0, 2, 2, 255]], np.uint8)))
    uri = str(tmp_path / "truth.png")
    size = {"height": MASK.shape[0], "width": MASK.shape[1]}
    masks = {"mask": encode_png(MASK), "confidence": encode_png(CONFIDENCE)}
    return {"image_uri": None, "mask_uri": uri, **masks, **size}


def test_counts_by_hand(row: dict[str, Any]) -> None:
    out = CountHits(num_classes=4).process(row)
    assert out["counted_ids"] == [0, 2]
    counts = np.zeros((3, 256, 4), np.int64)
    add_counts(counts, out["counted_ids"], out["counts"])
    hits, predicted, true = counts
    assert hits[0].tolist() == predicted[0].tolist() == true[0].tolist() == [1, 0, 0, 0]
    assert hits[100].tolist() == [0, 0, 1, 0]
    assert predicted[100].tolist() == [1, 0, 1, 0]
    assert true[100].tolist() == [0, 0, 2, 0]
    assert counts[:, 255].sum() == 0  # its truth isn't known


def test_counts_of_images_add_up(row: dict[str, Any], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    expected, added = np.zeros((2, 3, 256, 4), np.int64)
    for name in ("a", "b"):
        truth, mask = rng.choice(np.array([0, 1, 3, 255], np.uint8), (2, 9, 7))
        confidence = rng.integers(0, 256, (9, 7), np.uint8)
        (tmp_path / name).write_bytes(encode_png(truth))
        out = CountHits(num_classes=4).process(
            {"mask_uri": str(tmp_path / name), "mask": encode_png(mask), "confidence": encode_png(confidence)}
        )
        add_counts(added, out["counted_ids"], out["counts"])
        expected += confidence_counts(truth, mask, confidence, num_classes=4)
    np.testing.assert_array_equal(added, expected)


def test_an_image_without_known_pixels_counts_nothing(row: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "truth.png").write_bytes(encode_png(np.full((1, 4), 255, np.uint8)))
    assert CountHits(num_classes=4).process(row) == {"counted_ids": [], "counts": b""}


def test_truth_that_cannot_be_compared_is_an_error(row: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"values \[2\], but class ids end at 1"):
        CountHits(num_classes=2).process(row)
    with pytest.raises(ValueError, match=r"true mask is \(1, 4\) \(height, width\), the image \(1, 3\)"):
        CountHits(num_classes=4).process(row | {"mask": encode_png(MASK[:, :3])})


def calibrate(probability: Sequence[float], max_risk: float | None, row: Row) -> Row:
    stage = CalibrateMasks(probability=tuple(probability), max_risk=max_risk)
    stage.setup("cpu")
    return stage.process(row)


def test_confidence_becomes_the_probability(row: dict[str, Any]) -> None:
    out = calibrate(PROBABILITY.tolist(), None, row)
    assert decode_mask(out["confidence"]).tolist() == [[51, 153, 153, 255]]
    np.testing.assert_array_equal(decode_mask(out["mask"]), MASK)
    assert out["class_ids"] == [0, 2]
    assert out["areas"] == [0.5, 0.5]
    assert out["mean_confidences"] == pytest.approx([0.4, 0.8])


def test_risky_pixels_lose_their_label(row: dict[str, Any]) -> None:
    out = calibrate(PROBABILITY.tolist(), 0.5, row)
    assert decode_mask(out["mask"]).tolist() == [[255, 0, 2, 2]]
    assert out["class_ids"] == [0, 2]
    assert out["areas"] == [0.25, 0.5]  # of the whole image
    assert out["mean_confidences"] == pytest.approx([0.6, 0.8])
    bound = calibrate([0.75] * 256, 0.25, row)
    np.testing.assert_array_equal(decode_mask(bound["mask"]), MASK)  # just the bound is not too much


def test_no_pixel_is_sure_enough(row: dict[str, Any]) -> None:
    out = calibrate([0.3] * 256, 0.1, row)
    assert (decode_mask(out["mask"]) == 255).all()
    assert out["class_ids"] == out["areas"] == out["mean_confidences"] == []
