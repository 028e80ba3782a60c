import csv
import io

from raypipe.pipelines.score_tables import class_csv, class_table, scores_table
from raypipe.results import Score


def make_score(stage: str, **class_iou: float) -> Score:
    return Score(
        stage=stage,
        split="val",
        num_images=7,
        mean_iou=0.5,
        class_iou=class_iou,
        post_processing="none",
        truth_digest="0",
        num_unscored=0,
    )


SCORES = [
    make_score("walk", background=0.75, aeroplane=0.25, cat=float("nan")),
    make_score("segmenter", background=0.8, aeroplane=0.2, cat=0.123),
]


def test_a_row_a_stage() -> None:
    assert scores_table(SCORES).splitlines() == [
        "split  images  stage      mIoU  post-processing",
        "val    7       walk       50.0  none",
        "val    7       segmenter  50.0  none",
    ]


def test_a_column_a_class_with_the_mean_last() -> None:
    assert class_table(SCORES).splitlines() == [
        "stage      split  backgr  aeropl  cat   mean",
        "walk       val    75.0    25.0    –     50.0",
        "segmenter  val    80.0    20.0    12.3  50.0",
    ]


def test_many_classes_come_in_blocks() -> None:
    score = make_score("walk", **{f"c{index}": 0.5 for index in range(30)})
    first, second = class_table([score]).split("\n\n")
    assert "c20" in first
    assert second.split()[2] == "c21"


def test_the_file_has_whole_names_and_fractions() -> None:
    rows = list(csv.DictReader(io.StringIO(class_csv(SCORES))))
    assert rows[1]["aeroplane"] == "0.200000"
    assert rows[0]["cat"] == "nan"
    assert (rows[0]["stage"], rows[0]["images"], rows[0]["mean_iou"]) == ("walk", "7", "0.500000")
