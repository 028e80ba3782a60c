"""Scores by masks and true masks of a few pixels, whose confusion is counted by hand."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_outputs import write_masks, write_outputs

from raypipe.artifacts import Artifact
from raypipe.config import load_config
from raypipe.data.arrays import encode_cam
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest
from raypipe.outputs.records import read_summary
from raypipe.pipelines.context import Context
from raypipe.pipelines.evaluate import has_truth, read_confusions, run_evaluate, score_segments
from raypipe.pipelines.tally import read_image_scores
from raypipe.results import Score
from raypipe.schema import MASKS, SEEDS
from raypipe.streams import run

CAT, DOG, IGNORED = 1, 2, 255

TRUTH = [[0, 0, CAT, CAT], [0, 0, CAT, IGNORED], [DOG, DOG, CAT, CAT]]
MASK = [[0, CAT, CAT, CAT], [0, 0, CAT, CAT], [DOG, 0, 0, CAT]]
WALKED = [[0, 0, CAT, CAT], [0, 0, CAT, CAT], [DOG, DOG, CAT, CAT]]
COUNTED = [[3, 1, 0], [1, 4, 0], [1, 0, 1]]
"""Rows: what is true; columns: what the mask says; the ignored pixel isn't counted."""

OTHER_TRUTH, OTHER_MASK = [[0, 0], [0, DOG]], [[DOG, DOG], [DOG, DOG]]
TOGETHER = [[3, 1, 3], [1, 4, 0], [1, 0, 2]]
"""With the other image's."""


def png(values: list[list[int]]) -> bytes:
    return encode_png(np.array(values, np.uint8))


@pytest.fixture
def context(tmp_path: Path) -> Context:
    """Two images to train on, one whose true mask has another size, one of another split, one without truth."""
    truths = {"a": TRUTH, "b": OTHER_TRUTH, "odd": [[0, 0, 0]], "v": OTHER_TRUTH}
    rows: list[dict[str, Any]] = []
    for name, truth in truths.items():
        (tmp_path / f"{name}.png").write_bytes(png(truth))
        split = "val" if name == "v" else "train"
        mask_uri = str(tmp_path / f"{name}.png")
        rows.append({"image_id": name, "image_uri": name, "labels": ["cat"], "split": split, "mask_uri": mask_uri})
    rows.append({"image_id": "untold", "image_uri": "u", "labels": ["cat"], "split": "train", "mask_uri": None})
    config = load_config("preset: demo", [f"manifest={tmp_path}/m.parquet", f"out={tmp_path}/out", "cams.out_stride=1"])
    return Context(config, Manifest.from_rows(rows, ("cat", "dog")))


@pytest.fixture
def masks(tmp_path: Path) -> Artifact:
    """Their masks, with those before the refinement."""
    made = {
        "a": (MASK, WALKED),
        "b": (OTHER_MASK, OTHER_TRUTH),
        "odd": (OTHER_MASK, OTHER_MASK),
        "v": (OTHER_TRUTH, OTHER_MASK),
        "untold": (OTHER_MASK, OTHER_MASK),
    }
    rows = [{"image_id": name, "mask": png(mask), "walk_mask": png(walk)} for name, (mask, walk) in made.items()]
    return write_masks(str(tmp_path / "masks"), rows)


@pytest.fixture
def seeds(tmp_path: Path) -> Artifact:
    """Maps of the first image: right, but for a little cat everywhere in the background."""
    truth = np.array(WALKED)
    cam = np.stack([np.where(truth == CAT, 0.9, 0.12), np.where(truth == DOG, 0.3, 0)]).astype(np.float32)
    size = {"height": 3, "width": 4, "cam_height": 3, "cam_width": 4}
    row = {"image_id": "a", "class_ids": [CAT, DOG], "cam": encode_cam(cam), **size}
    return write_outputs(str(tmp_path / "seeds"), SEEDS, [row], digest="s")


def by_name(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.stage, score.split): score for score in scores}


def image_scores(folder: Artifact, stage: str) -> dict[str, dict[str, float]]:
    """Mean IoU of each image, by split and id."""
    found: dict[str, dict[str, float]] = {}
    for row in (row for table in read_image_scores(folder.uri, stage=stage) for row in table.to_pylist()):
        found.setdefault(row["split"], {})[row["image_id"]] = row["mean_iou"]
    return found


def test_scores_are_those_of_the_confusion_counted_by_hand(
    in_this_process: None, context: Context, masks: Artifact, seeds: Artifact
) -> None:
    folder, scores = run_evaluate(context, seeds=seeds, masks=masks)
    found = by_name(scores)
    assert list(found) == [(stage, split) for stage in ("cam", "walk", "dcrf") for split in ("train", "val")]
    confusions = read_confusions(folder.uri)
    assert confusions["dcrf", "train"].tolist() == TOGETHER
    assert confusions["dcrf", "val"].tolist() == [[3, 0, 0], [0, 0, 0], [0, 0, 1]]

    final = found["dcrf", "train"]
    assert final.class_iou == pytest.approx({"background": 3 / 9, "cat": 4 / 6, "dog": 2 / 6})
    assert final.mean_iou == pytest.approx((3 / 9 + 4 / 6 + 2 / 6) / 3), "of the pixels of all images together"
    expected = {"a": (3 / 6 + 4 / 6 + 1 / 2) / 3, "b": (0 + 1 / 4) / 2}
    assert image_scores(folder, "dcrf")["train"] == pytest.approx(expected, abs=1e-4)
    assert set(image_scores(folder, "walk")["val"]) == {"v"}
    assert set(image_scores(folder, "cam")["train"]) == {"a"}, "the others have no maps"
    assert (final.num_images, final.num_unscored) == (2, 1)
    assert "(1, 3) (height, width), the image (2, 2)" in final.unscored["odd"]
    assert found["walk", "train"].mean_iou == 1
    assert found["walk", "val"].mean_iou == pytest.approx((0 + 1 / 4) / 2), "a class that isn't there doesn't count"


def test_maps_are_cut_where_the_first_split_is_best(
    in_this_process: None, context: Context, masks: Artifact, seeds: Artifact
) -> None:
    found = by_name(run_evaluate(context, seeds=seeds, masks=masks)[1])
    assert found["cam", "train"].mean_iou == 1
    assert found["cam", "train"].num_images == 1, "the others have no maps"
    assert (
        found["cam", "train"].post_processing == found["cam", "val"].post_processing == "background 0.15, best on train"
    )


def test_counted_by_hand(in_this_process: None, context: Context, tmp_path: Path) -> None:
    """One image alone: a segmentation network's masks."""
    segments = write_masks(str(tmp_path / "segments"), [{"image_id": "a", "mask": png(MASK)}])
    (score,) = score_segments(context, segments)
    assert score.confusion is not None
    assert score.confusion.tolist() == COUNTED
    assert (score.stage, score.num_images) == ("segmenter", 1)
    assert score.mean_iou == pytest.approx((3 / 6 + 4 / 6 + 1 / 2) / 3)


def test_what_is_scored_is_not_scored_again(
    in_this_process: None, context: Context, masks: Artifact, seeds: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, scores = run_evaluate(context, seeds=seeds, masks=masks)
    monkeypatch.setattr(run, "execute", lambda *_, **__: pytest.fail("it is there"))
    assert run_evaluate(context, seeds=seeds, masks=masks) == (folder, scores)


def test_of_a_grown_manifest_only_the_new_images_are_scored(
    in_this_process: None, context: Context, masks: Artifact, seeds: Artifact, tmp_path: Path
) -> None:
    folder, scores = run_evaluate(context, seeds=seeds, masks=masks)
    write_masks(masks.uri, [{"image_id": "w", "mask": png(OTHER_MASK), "walk_mask": png(OTHER_TRUTH)}])
    new = {"image_id": "w", "image_uri": "w", "labels": ["cat"], "split": "val", "mask_uri": str(tmp_path / "v.png")}
    rows = [*context.manifest.table.to_pylist(), new]
    grown, (*_, last) = run_evaluate(
        Context(context.config, Manifest.from_rows(rows, context.classes)), seeds=seeds, masks=masks
    )
    assert grown != folder
    (scored,) = (tmp_path / "out" / "scores").iterdir()
    summary = read_summary(str(scored))
    assert summary is not None
    assert (summary["num_rows"], summary["num_computed"]) == (5, 1)
    assert (last.stage, last.split, last.num_images) == ("dcrf", "val", 2)
    assert run_evaluate(context, seeds=seeds, masks=masks) == (folder, scores), "the smaller set is known, too"


def test_a_mask_that_changed_is_scored_again_and_one_that_is_gone_is_not(
    in_this_process: None, context: Context, masks: Artifact, seeds: Artifact
) -> None:
    folder, _ = run_evaluate(context, seeds=seeds, masks=masks)
    shutil.rmtree(masks.uri)
    write_outputs(masks.uri, MASKS, [{"image_id": "a", "mask": png(WALKED)}], digest="m", made_of="changed")
    again, scores = run_evaluate(context, seeds=seeds, masks=masks)
    assert again != folder
    assert by_name(scores)["dcrf", "train"].num_images == 1
    assert by_name(scores)["dcrf", "train"].mean_iou == 1


def test_without_truth_there_is_nothing_to_score(context: Context, masks: Artifact, seeds: Artifact) -> None:
    rows = [row for row in context.manifest.table.to_pylist() if row["mask_uri"] is None]
    untold = Context(context.config, Manifest.from_rows(rows, context.classes))
    assert has_truth(context)
    assert not has_truth(untold)
    with pytest.raises(ValueError, match="no row has a true mask"):
        run_evaluate(untold, seeds=seeds, masks=masks)
