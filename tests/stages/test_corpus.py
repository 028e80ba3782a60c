"""Every bad or odd row, without a cluster: decoded and encoded as expected, or quarantined with the reason."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from corpus import CASES, CLASSES, GOOD, Case

from raypipe.data.images import decode_image, decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.opening import check_header
from raypipe.stages.base import Row, Stage, run_stages
from raypipe.stages.decode import DecodeImages
from raypipe.stages.encode import EncodeMasks
from raypipe.stages.fetch import FetchImages


@dataclass
class AllOfClass1(Stage):
    """Every pixel is of class 1, surely."""

    reads = ("height", "width")
    leaves = ("labels_array", "confidence_array", "walk_array")

    def process(self, row: Row) -> Row:
        return dict.fromkeys(self.leaves, np.ones((row["height"], row["width"]), np.uint8))


def make_mask(row: Row) -> Row:
    stages = [FetchImages(classes=CLASSES), DecodeImages(max_side=1024), AllOfClass1(), EncodeMasks()]
    made: list[Row] = run_stages(stages, Manifest.from_rows([row], CLASSES).table).to_pylist()
    return made[0]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_becomes_of_a_row(case: Case, tmp_path: Path) -> None:
    row = make_mask(case.row(tmp_path / "case"))
    if case.size is None:
        assert row["error_stage"] in ("FetchImages", "DecodeImages")
        if row["error_stage"] == "DecodeImages":
            check_header(row["image"])
        assert case.reason is not None
        assert case.reason in row["error_reason"]
        assert len(row["error_reason"]) <= 1000
        return
    assert row["error_reason"] is None
    assert (row["original_height"], row["original_width"]) == case.size
    assert decode_mask(row["mask"]).shape == (row["height"], row["width"]) == case.size
    assert row["class_ids"] == [1]


def test_pictures_look_as_they_should(tmp_path: Path) -> None:
    """Whatever the file's kind, it is the same picture."""
    names = (
        "PNG named .jpg",
        "CMYK JPEG",
        "RGBA",
        "CMYK TIFF",
        "animated GIF",
        "animated WebP",
        "broken EXIF",
        "LAB TIFF",
    )
    cases = {case.name: case for case in CASES}
    good = decode_image(Path(GOOD(tmp_path)).read_bytes()).pixels.astype(int)
    for number, name in enumerate(names):
        row = cases[name].row(tmp_path / str(number))
        pixels = decode_image(Path(row["image_uri"]).read_bytes()).pixels
        assert np.abs(pixels - good).mean() < 8, name


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": "a"}, {"image_id": "b"}, {"image_id": "a"}], r"given more than once, such as \['a'\]"),
        ([{"image_id": "a"}, {"image_id": ""}], "1 row has no image_id, first row 1"),
        ([{"image_id": "a"}, {"image_id": None}], "1 row has no image_id, first row 1"),
        ([{"image_id": "a\ud800"}], "doesn't fit the manifest's columns"),
    ],
)
def test_rows_that_no_table_could_tell_apart_are_refused_as_a_whole(rows: list[dict], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest.from_rows(rows, CLASSES)
