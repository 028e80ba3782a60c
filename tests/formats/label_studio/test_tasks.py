"""Label Studio's tasks as a dataset; what raypipe exports comes back in tests/formats/test_round_trip.py."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_cases import Said, column, imported, make_image, run

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.formats.label_studio.brush import encode_brush

CONFIG = """<View><Image name="image" value="$image"/><BrushLabels name="mask" toName="image">
  <Label value="dog"/><Label value="cat"/><Label value="ignore"/></BrushLabels></View>"""


def region(label: str, rows: slice, columns: slice) -> dict[str, Any]:
    pixels = np.zeros((96, 128), bool)
    pixels[rows, columns] = True
    return {
        "type": "brushlabels",
        "original_width": 128,
        "original_height": 96,
        "image_rotation": 0,
        "value": {"format": "rle", "rle": encode_brush(pixels), "brushlabels": [label]},
    }


def task(folder: Path, name: str, results: list[Any] | None, **changes: Any) -> dict[str, Any]:
    make_image(folder / f"{name}.jpg")
    annotations = [] if results is None else [{"result": results, "updated_at": "2024-01-01", "was_cancelled": False}]
    return {"data": {"image": str(folder / f"{name}.jpg")}, "annotations": annotations, **changes}


def write(folder: Path, tasks: list[dict[str, Any]], *, config: str | None = CONFIG) -> Path:
    (folder / "tasks.json").write_text(json.dumps(tasks))
    if config:
        (folder / "config.xml").write_text(config)
    return folder / "tasks.json"


def test_annotations_are_masks_and_labels(tmp_path: Path) -> None:
    results = [region("cat", slice(0, 30), slice(0, 40)), region("ignore", slice(0, 5), slice(0, 40))]
    tasks = [task(tmp_path, "a", results), task(tmp_path, "b", []), task(tmp_path, "c", None)]
    source = write(tmp_path, tasks)
    found = imported("labelstudio-tasks", source, "--masks", tmp_path / "masks", tmp_path / "m.parquet")
    assert found.classes == ("dog", "cat")
    assert column(found, "labels") == [["cat"], [], None]
    masks = [place and decode_mask(storage.read_bytes(place)) for place in column(found, "mask_uri")]
    assert [int((masks[0] == value).sum()) for value in (0, 2, 255)] == [96 * 128 - 1200, 1000, 200]
    assert masks[1].shape == (96, 128)
    assert masks[2] is None


def test_an_annotation_goes_before_a_prediction(tmp_path: Path) -> None:
    guess = {"predictions": [{"result": [region("dog", slice(0, 9), slice(0, 9))]}]}
    own = [region("cat", slice(0, 9), slice(0, 9))]
    source = write(tmp_path, [task(tmp_path, "a", own, **guess), task(tmp_path, "b", None, **guess)])
    assert column(imported("labelstudio-tasks", source, tmp_path / "m.parquet"), "labels") == [["cat"], ["dog"]]


def test_one_region_that_cannot_be_read_costs_its_own_mask(tmp_path: Path) -> None:
    polygon = {"type": "polygonlabels", "value": {"points": [], "polygonlabels": ["cat"]}}
    damaged = region("cat", slice(0, 9), slice(0, 9))
    damaged["value"]["rle"] = damaged["value"]["rle"][:6]
    tasks = [task(tmp_path, f"{n}", [region("dog", slice(0, 9), slice(0, 9))]) for n in range(3)]
    source = write(tmp_path, [*tasks, task(tmp_path, "x", [polygon]), task(tmp_path, "y", [damaged])])
    said = run("labelstudio-tasks", source, "--masks", tmp_path / "masks", tmp_path / "m.parquet")
    assert "1 mask of tasks whose regions can't be read" in said
    assert "1 mask that can't be drawn" in said


def test_without_a_configuration_classes_are_those_of_the_labels(tmp_path: Path) -> None:
    source = write(tmp_path, [task(tmp_path, "a", [region("cat", slice(0, 9), slice(0, 9))])], config=None)
    assert imported("labelstudio-tasks", source, tmp_path / "m.parquet").classes == ("cat",)


@pytest.mark.parametrize(
    ("content", "config", "said"),
    [
        ("{}", CONFIG, "holds no list of tasks"),
        ("[1]", CONFIG, "expected 'data'"),
        ('[{"data": {}}]', "<View", "is not XML"),
        ('[{"data": {}}]', "<!DOCTYPE x><View/>", "document type"),
    ],
)
def test_what_are_no_tasks(tmp_path: Path, content: str, config: str, said: str) -> None:
    (tmp_path / "tasks.json").write_text(content)
    (tmp_path / "config.xml").write_text(config)
    with pytest.raises(Said, match=said):
        run("labelstudio-tasks", tmp_path, tmp_path / "m.parquet")
