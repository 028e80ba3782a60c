"""Confusion matrices that are added up split by split, from outputs that are written as a stream would."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from stream_outputs import write_outputs, write_quarantine

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.rows import InMemory, Part, Rows
from raypipe.pipelines.tally import NO_SPLIT, Matrices, Tally, read_image_scores, tally
from raypipe.stages.score_masks import pack
from raypipe.streams import tasks

SCORED = pa.schema([("image_id", pa.string()), ("confusion", pa.binary()), ("truth_digest", pa.string())])
COLUMNS = {"confusion": Matrices(2, "truth_digest", "walk")}
SPLITS = {"p0": {"a": "train", "b": "val", "c": None}, "p1": {"d": "train", "e": "val", "f": "train"}}
RIGHT, HALF = [[4, 0], [0, 4]], [[4, 0], [4, 0]]
"""Mean IoU 1, and (4 / 8 + 0 / 4) / 2 = 0.25."""


def scored(name: str, first: list[list[int]], second: list[list[int]] = HALF, truth: str = "t") -> dict[str, Any]:
    return {"image_id": name, "confusion": pack(np.array([first, second])), "truth_digest": truth}


@pytest.fixture
def rows() -> Rows:
    """Six rows in two parts."""
    parts = []
    for name, splits in SPLITS.items():
        table = pa.table([pa.array([*splits]), pa.array([*splits.values()], pa.string())], ["image_id", "split"])
        parts.append(Part(name, table.num_rows, InMemory(table)))
    return Rows(tuple(parts), schema=table.schema)


@pytest.fixture
def outputs(tmp_path: Path) -> Artifact:
    """Their scores, but for f, which couldn't be scored."""
    folder = str(tmp_path / "scores")
    write_outputs(folder, SCORED, [scored("a", RIGHT), scored("b", HALF), scored("c", RIGHT)], part="p0")
    write_quarantine(folder, {"f": ("ScoreMasks", "another size")}, part="p1")
    return write_outputs(folder, SCORED, [scored("d", HALF), scored("e", HALF)], part="p1")


@pytest.mark.parametrize("in_tasks", [False, True])
def test_matrices_are_added_up_by_split(
    local_ray: None, rows: Rows, outputs: Artifact, monkeypatch: pytest.MonkeyPatch, *, in_tasks: bool
) -> None:
    if in_tasks:
        monkeypatch.setattr(tasks, "FEW_ROWS", 0)
    found = tally(outputs, rows, COLUMNS, num_classes=2)["confusion"]
    assert list(found) == [NO_SPLIT, "train", "val"]
    assert found["train"].confusion.tolist() == [[[8, 0], [4, 4]], [[8, 0], [8, 0]]]
    assert found["val"].confusion.tolist() == [[[8, 0], [8, 0]], [[8, 0], [8, 0]]]
    assert {split: each.num_images for split, each in found.items()} == {NO_SPLIT: 1, "train": 2, "val": 2}
    assert (found["train"].num_unscored, found["train"].unscored) == (1, {"f": "another size"})
    assert found["val"].num_unscored == 0


def test_a_score_is_one_of_the_matrices(rows: Rows, outputs: Artifact) -> None:
    train = tally(outputs, rows, COLUMNS, num_classes=2)["confusion"]["train"]
    score = train.score(stage="cam", split="train", post_processing="none", classes=("cat",), index=0)
    assert score.class_iou == pytest.approx({"background": 8 / 12, "cat": 4 / 8})
    assert score.mean_iou == pytest.approx((8 / 12 + 4 / 8) / 2)
    assert (score.num_images, score.num_unscored, score.unscored) == (2, 1, {"f": "another size"})
    worse = train.score(stage="cam", split="train", post_processing="none", classes=("cat",), index=1)
    assert worse.mean_iou == pytest.approx(0.25)
    assert worse.truth_digest == score.truth_digest


def test_the_truth_is_known_whatever_the_order_and_the_parts(rows: Rows, outputs: Artifact, tmp_path: Path) -> None:
    def digest(made: Artifact, of: Rows) -> str:
        found = tally(made, of, COLUMNS, num_classes=2)["confusion"]["train"]
        return found.score(stage="", split="", post_processing="", classes=("cat",)).truth_digest

    names = ["f", "e", "d", "c", "b", "a"]
    splits = [(SPLITS["p0"] | SPLITS["p1"])[name] for name in names]
    one = Rows.of(pa.table([pa.array(names), pa.array(splits, pa.string())], ["image_id", "split"]))
    rest = [scored(name, RIGHT) for name in "edcb"]
    same = write_outputs(str(tmp_path / "same"), SCORED, [*rest, scored("a", HALF)], rows_per_shard=2)
    other = write_outputs(str(tmp_path / "other"), SCORED, [*rest, scored("a", HALF, truth="u")])
    assert digest(same, one) == digest(outputs, rows), "other masks, of the same truth"
    assert digest(other, one) != digest(outputs, rows)


def test_images_have_scores_of_their_own(rows: Rows, outputs: Artifact, tmp_path: Path) -> None:
    folder = str(tmp_path / "results")
    tally(outputs, rows, COLUMNS, num_classes=2, images=storage.join(folder, "images", "masks"))
    tables = list(read_image_scores(folder, stage="walk"))
    found = [row for table in tables for row in table.to_pylist()]
    assert len(tables) == 2, "a part at a time"
    assert found[0] == {"image_id": "a", "stage": "walk", "split": "train", "mean_iou": 1.0}
    assert {row["image_id"]: row["mean_iou"] for row in found} == {"a": 1, "b": 0.25, "c": 1, "d": 0.25, "e": 0.25}
    assert [row for table in read_image_scores(folder, stage="dcrf") for row in table.to_pylist()] == []
    assert list(read_image_scores(str(tmp_path / "absent"), stage="walk")) == []


def test_outputs_without_a_matrix_count_nowhere(rows: Rows, tmp_path: Path) -> None:
    """A row that has a mask and no maps, or a mask that wasn't refined."""
    nothing = {"image_id": "a", "confusion": None, "truth_digest": None}
    outputs = write_outputs(str(tmp_path / "scores"), SCORED, [nothing, scored("b", RIGHT)], part="p0")
    found = tally(outputs, rows, COLUMNS, num_classes=2, images=str(tmp_path / "images"))["confusion"]
    assert found["train"].num_images == 0
    assert not found["train"].confusion.any()
    assert found["val"].num_images == 1


def test_where_no_image_is_scored_reasons_are_counted_all_the_same(rows: Rows, tmp_path: Path) -> None:
    folder = str(tmp_path / "scores")
    write_quarantine(folder, {"a": ("ScoreMasks", "denied")}, part="p0")
    found = tally(Artifact(folder, "s"), rows, COLUMNS, num_classes=2)["confusion"]
    assert {split: (each.num_images, each.num_unscored) for split, each in found.items()} == {"train": (0, 1)}
    assert found["train"].unscored == {"a": "denied"}


def test_of_many_reasons_some_are_kept() -> None:
    def make(*names: str) -> Tally:
        return Tally(np.zeros((1, 2, 2), np.int64), num_unscored=len(names), unscored=dict.fromkeys(names, "denied"))

    total = make(*(f"{number:03}" for number in range(15)))
    total.add(make(*(f"{number:03}" for number in range(10, 40))))
    assert total.num_unscored == 45
    assert list(total.unscored) == [f"{number:03}" for number in range(20)]


@pytest.mark.parametrize("number", [5, 500])
def test_a_part_sends_one_sum_however_many_rows_it_has(number: int, tmp_path: Path) -> None:
    """Of COCO's 81 classes and 16 thresholds, whose matrices of one row are 840 KB."""
    ids = [f"{index:03}" for index in range(number)]
    rng = np.random.default_rng(0)
    scores = []
    for name in ids:
        matrices = np.zeros((16, 81, 81), np.int64)
        for truth, mask in rng.integers(0, 81, (6, 2)):
            matrices[:, truth, mask] = rng.integers(1, 10_000, 16)
        scores.append({"image_id": name, "confusion": pack(matrices), "truth_digest": "t"})
    outputs = write_outputs(str(tmp_path), SCORED, scores, part="all")
    rows = Rows.of(pa.table({"image_id": ids, "split": ["val"] * number}))
    found = tally(outputs, rows, {"confusion": Matrices(16, "truth_digest", "cam")}, num_classes=81)
    assert found["confusion"]["val"].num_images == number
    assert len(pickle.dumps(found)) < 1_000_000
