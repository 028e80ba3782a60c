from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.data.arrays import decode_cam
from raypipe.formats.cams.read import import_cams
from raypipe.stages.base import Row, with_error_columns
from raypipe.stages.given_cams import LoadGivenCams

HEIGHT, WIDTH = 20, 30


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Maps of one image: class 3 rises from left to right, class 1 from top to bottom."""
    (tmp_path / "maps").mkdir()
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    np.savez(tmp_path / "maps/a.npz", class_ids=[3, 1], cam=[(columns + 0.5) / WIDTH, (rows + 0.5) / HEIGHT])
    import_cams(str(tmp_path / "maps"), str(tmp_path / "imported"))
    return str(tmp_path / "imported")


def process(folder: str, *, out_stride: Any = 4, **changes: object) -> Row:
    row = {"image_id": "a", "class_ids": [1, 3], "height": HEIGHT, "width": WIDTH}
    row |= {"original_height": HEIGHT, "original_width": WIDTH} | changes
    table = LoadGivenCams(maps=Artifact(folder, "m"), out_stride=out_stride)(
        with_error_columns(pa.Table.from_pylist([row]))
    )
    return dict(table.to_pylist()[0])


def cam_of(row: Row) -> np.ndarray[Any, np.dtype[np.float32]]:
    assert row["error_reason"] is None, row["error_reason"]
    return decode_cam(row["cam"], height=row["cam_height"], width=row["cam_width"])


def test_cells_have_the_value_at_their_centres(folder: str) -> None:
    """A cell of 4 pixels has its centre at 4 i + 2; then each map's maximum is made 1."""
    cam = cam_of(process(folder))
    assert cam.shape == (2, 5, 8)
    columns = np.minimum(4 * np.arange(8) + 2, 29.5)  # beyond the last pixel's centre its value goes on
    np.testing.assert_allclose(cam[1], np.broadcast_to(columns / columns[-1], (5, 8)), atol=1e-3)
    np.testing.assert_allclose(cam[0][:, 0], (4 * np.arange(5) + 2) / 18, atol=1e-3)


def test_full_size_keeps_them_but_for_the_scale(folder: str) -> None:
    cam = cam_of(process(folder, out_stride=1, class_ids=[3]))
    np.testing.assert_allclose(cam[0], np.broadcast_to((np.arange(30) + 0.5) / 29.5, (20, 30)), atol=1e-3)


def test_a_reduced_image_has_the_same_maps_on_its_grid(folder: str) -> None:
    cam = cam_of(process(folder, height=10, width=15, class_ids=[3]))
    assert cam.shape == (1, 3, 4)
    columns = (4 * np.arange(4) + 2) * 2
    np.testing.assert_allclose(cam[0, 0], columns / columns[-1], atol=1e-2)


def test_an_image_without_labels_needs_no_file(folder: str) -> None:
    assert cam_of(process(folder, image_id="absent", class_ids=[])).shape == (0, 5, 8)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"image_id": "absent"}, "FileNotFoundError"),
        ({"class_ids": [1, 2]}, r"maps of the class ids \[1, 3\], but the image is labelled \[2\], too"),
        ({"original_width": 31}, r"are \(20, 30\) \(height, width\), the image \(20, 31\)"),
        ({"image_id": "broken"}, "holds no maps"),
    ],
)
def test_rows_without_their_maps_say_why(folder: str, changes: dict[str, object], reason: str) -> None:
    Path(folder, "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    row = process(folder, **changes)
    assert row["error_stage"] == "LoadGivenCams"
    assert pa.compute.match_substring_regex(pa.scalar(row["error_reason"]), reason).as_py(), row["error_reason"]
