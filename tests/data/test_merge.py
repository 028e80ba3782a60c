import pytest

from raypipe.data.manifest import Manifest
from raypipe.data.merge import with_masks

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
    with pytest.raises(ValueError, match="1 masks belong to no row of the manifest, such as 'aa': did you mean 'a'"):
        with_masks(Manifest.from_rows(ROWS, ["cat"]), {"aa": "new.png"})
