from pathlib import Path

import numpy as np
import pytest

from raypipe.data.manifest import Manifest
from raypipe.data.merge import Corrections, with_masks

ROWS = [
    {"image_id": "a", "image_uri": "a.jpg", "labels": ["cat"], "mask_uri": "old.png", "supervision": "weak"},
    {"image_id": "b", "image_uri": "b.jpg", "labels": None, "split": "val", "mask_uri": "b.png"},
    {"image_id": "c", "image_uri": "c.jpg", "labels": []},
]


def test_named_rows_get_masks_and_all_else_stays() -> None:
    manifest = Manifest.from_rows(ROWS, ["cat"])
    merged = with_masks(manifest, {"a": "new.png", "c": "c.png"})
    expected = [row | {"supervision": "mask"} for row in manifest.table.to_pylist()]
    expected[0]["mask_uri"], expected[2]["mask_uri"] = "new.png", "c.png"
    expected[1]["supervision"] = None
    assert merged.table.to_pylist() == expected
    assert merged.classes == ("cat",)
    assert with_masks(manifest, {}).table.equals(manifest.table)


def test_masks_of_no_row_are_refused() -> None:
    with pytest.raises(ValueError, match="of no row of the manifest: 1 mask, such as 'aa': did you mean 'a'"):
        with_masks(Manifest.from_rows(ROWS, ["cat"]), {"aa": "new.png"})


NAMED = Manifest.from_rows(
    [
        {"image_id": "one", "image_uri": "s3://b/x/1.jpg", "labels": []},
        {"image_id": "two", "image_uri": "s3://b/y/1.jpg", "labels": []},
        {"image_id": "sub/3.png", "image_uri": None, "labels": []},
    ],
    ["cat"],
)


@pytest.mark.parametrize(
    ("image_id", "name", "row"),
    [
        ("two", "anything", "two"),
        (None, "s3://b/x/1.jpg", "one"),
        (None, "1.jpg", None),  # two have this name
        (None, "z/1.jpg", None),
        (None, "y/1.jpg", "two"),  # of which one lies in such a folder
        (None, "two", "two"),
        (None, "folder/two.png", "two"),
        (7, "sub/3.png", "sub/3.png"),
        (None, "3.jpg", None),
        ("three", "", None),
    ],
)
def test_the_row_that_another_program_names(image_id: object, name: str, row: str | None) -> None:
    corrections = Corrections(NAMED, "unused")
    assert corrections.row_of(image_id, name, place="file") == row
    assert sum(map(len, corrections.skipped.values())) == (row is None)


def test_what_cannot_be_taken_is_left_out_unless_that_is_all(tmp_path: Path) -> None:
    corrections = Corrections(NAMED, str(tmp_path))
    assert corrections.merged().table.equals(NAMED.table), "a file without masks"
    corrections.leave_out("masks that can't be read", ["a", "b"])
    with pytest.raises(ValueError, match=r"none of the masks can be taken: a \(1 more were left out, too\)"):
        corrections.merged()
    corrections.add("two", np.ones((1, 1), np.uint8))
    assert [place is not None for place in corrections.merged().table["mask_uri"].to_pylist()] == [False, True, False]
    corrections.add("two", np.ones((1, 1), np.uint8))
    assert corrections.skipped["masks of rows that have a later one in the same file"] == ["two"]
