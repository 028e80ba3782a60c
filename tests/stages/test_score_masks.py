from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encode, photo
from PIL import Image

from raypipe.data.arrays import encode_cam
from raypipe.data.images import encode_png, turn
from raypipe.stages.score_masks import ScoreCams, ScoreMasks, pack, unpack


@pytest.fixture
def mask_uri(tmp_path: Path) -> str:
    truth = np.zeros((4, 8), np.uint8)
    truth[:, 4:] = 2
    truth[0] = 255
    (tmp_path / "truth.png").write_bytes(encode_png(truth))
    return str(tmp_path / "truth.png")


def seed_row(mask_uri: str, **columns: Any) -> dict[str, Any]:
    plain = {"image_uri": None, "height": 4, "width": 8, "class_ids": [], "cam": b"", "cam_height": 1, "cam_width": 2}
    return {"mask_uri": mask_uri} | plain | columns


def test_masks_by_hand(mask_uri: str) -> None:
    mask = np.zeros((4, 8), np.uint8)
    mask[:, 6:] = 2
    row: dict[str, Any] = {"mask_uri": mask_uri, "mask": encode_png(mask), "walk_mask": None}
    out = ScoreMasks(num_classes=3).process(row)
    (confusion,) = unpack(out["confusion"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(confusion, [[12, 0, 0], [0, 0, 0], [6, 0, 6]])
    assert out["walk_confusion"] is None
    again = ScoreMasks(num_classes=3).process(row | {"walk_mask": row["mask"]})
    assert again["walk_confusion"] == out["confusion"]
    assert again["truth_digest"] == out["truth_digest"]


def test_rows_without_an_output_are_not_scored(mask_uri: str) -> None:
    nothing = ScoreMasks(num_classes=3).process({"mask_uri": mask_uri, "mask": None, "walk_mask": None})
    assert nothing == {"confusion": None, "walk_confusion": None, "truth_digest": None}
    stage = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=1024)
    assert stage.process(seed_row(mask_uri, cam=None)) == {"cam_confusions": None, "cam_truth_digest": None}


def test_cams_by_hand_at_each_threshold(mask_uri: str) -> None:
    cam = np.zeros((1, 4, 8), np.float32)
    cam[0, :, 2:4] = 0.4
    cam[0, :, 4:] = 0.8
    row = seed_row(mask_uri, class_ids=[2], cam=encode_cam(cam), cam_height=4, cam_width=8)
    stage = ScoreCams(num_classes=3, thresholds=(0.2, 0.5, 0.9), cam_stride=1, max_side=1024)
    matrices = unpack(stage.process(row)["cam_confusions"], num_matrices=3, num_classes=3)
    np.testing.assert_array_equal(matrices[0], [[6, 0, 6], [0, 0, 0], [0, 0, 12]])
    np.testing.assert_array_equal(matrices[1], [[12, 0, 0], [0, 0, 0], [0, 0, 12]])
    np.testing.assert_array_equal(matrices[2], [[12, 0, 0], [0, 0, 0], [12, 0, 0]])


def test_unknown_places_of_cams_are_background(mask_uri: str) -> None:
    cam = np.ones((1, 4, 8), np.float32)
    cam[0, :, 4:] = np.nan
    row = seed_row(mask_uri, class_ids=[2], cam=encode_cam(cam), cam_height=4, cam_width=8)
    out = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=1024).process(row)
    matrices = unpack(out["cam_confusions"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(matrices[0], [[0, 0, 12], [0, 0, 0], [12, 0, 0]])


def test_convention_cells_of_maps_are_not_stretched_over_an_odd_size(tmp_path: Path) -> None:
    """9 pixels have 3 cells of 4: the step between cells 0 and 1 is at pixel 4, not at 3."""
    truth = np.zeros((4, 9), np.uint8)
    truth[:, 4:] = 2
    (tmp_path / "truth.png").write_bytes(encode_png(truth))
    cam = np.array([[[0.0, 0.8, 0.8]]], np.float32)
    row = seed_row(str(tmp_path / "truth.png"), width=9, class_ids=[2], cam=encode_cam(cam), cam_height=1, cam_width=3)
    stage = ScoreCams(num_classes=3, thresholds=(0.4,), cam_stride=4, max_side=1024)
    (confusion,) = unpack(stage.process(row)["cam_confusions"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(confusion, [[16, 0, 0], [0, 0, 0], [0, 0, 20]])


def test_cams_without_labels_are_background(mask_uri: str) -> None:
    stage = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=1024)
    matrices = unpack(stage.process(seed_row(mask_uri))["cam_confusions"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(matrices[0], [[12, 0, 0], [0, 0, 0], [12, 0, 0]])


@pytest.mark.parametrize(("max_side", "height", "width"), [(8, 4, 8), (4, 2, 4), (6, 3, 6)])
def test_cams_of_a_reduced_image_are_scored(mask_uri: str, max_side: int, height: int, width: int) -> None:
    stage = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=max_side)
    assert stage.process(seed_row(mask_uri, height=height, width=width))["cam_truth_digest"]


def test_cams_against_a_truth_of_another_size_are_an_error(mask_uri: str) -> None:
    stage = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=1024)
    with pytest.raises(ValueError, match=r"true mask is \(4, 8\).*reduced to max_side, \(4, 9\)"):
        stage.process(seed_row(mask_uri, width=9))


def test_truth_of_another_size_is_an_error(mask_uri: str) -> None:
    row = {"mask_uri": mask_uri, "mask": encode_png(np.zeros((4, 9), np.uint8)), "walk_mask": None}
    with pytest.raises(ValueError, match=r"true mask is \(4, 8\).*image \(4, 9\)"):
        ScoreMasks(num_classes=3).process(row)


def test_truth_with_unknown_class_is_an_error(mask_uri: str) -> None:
    row = {"mask_uri": mask_uri, "mask": encode_png(np.zeros((4, 8), np.uint8)), "walk_mask": None}
    with pytest.raises(ValueError, match=r"values \[2\], but class ids end at 1"):
        ScoreMasks(num_classes=2).process(row)


def test_matrices_of_many_classes_take_little_and_come_back() -> None:
    matrices = np.zeros((16, 81, 81), np.int64)
    matrices[:, 0, 0], matrices[3, 80, 80], matrices[15, 7, 0] = 10**10, 1, 2
    packed = pack(matrices)
    assert len(packed) == 16 * (16 + 2), "place and number of what isn't 0"
    np.testing.assert_array_equal(unpack(packed, num_matrices=16, num_classes=81), matrices)
    np.testing.assert_array_equal(unpack(b"", num_matrices=1, num_classes=2), np.zeros((1, 2, 2)))


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_truth_of_the_picture_in_the_file_is_turned(tmp_path: Path, mask_uri: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "photo.jpg").write_bytes(encode(photo(4, 8), "JPEG", exif=exif.tobytes()))
    truth = np.zeros((4, 8), np.uint8)
    truth[:, 4:] = 2
    row = {"image_uri": str(tmp_path / "photo.jpg"), "mask_uri": mask_uri}
    mask = {"mask": encode_png(turn(truth, orientation)), "walk_mask": None}
    (confusion,) = unpack(ScoreMasks(num_classes=3).process(row | mask)["confusion"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(confusion, [[12, 0, 0], [0, 0, 0], [0, 0, 12]])

    cam = turn(np.repeat(np.arange(8, dtype=np.uint8)[None] // 4, 4, axis=0), orientation).astype(np.float32)
    shapes = {"height": 8, "width": 4, "cam_height": 8, "cam_width": 4}
    seed = seed_row(class_ids=[2], cam=encode_cam(cam[None]), **row, **shapes)
    out = ScoreCams(num_classes=3, thresholds=(0.5,), cam_stride=1, max_side=1024).process(seed)
    (confusion,) = unpack(out["cam_confusions"], num_matrices=1, num_classes=3)
    np.testing.assert_array_equal(confusion, [[12, 0, 0], [0, 0, 0], [0, 0, 12]])
