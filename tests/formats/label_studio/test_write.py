"""Tasks for Label Studio, their run lengths decoded as documented, and by its own decoder where it is installed."""

import json
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from export_rows import CLASSES, MASKS

from raypipe.formats.label_studio import write as label_studio
from raypipe.formats.label_studio.brush import decode_brush
from raypipe.formats.label_studio.names import ignore_label
from raypipe.schema import IGNORE

Export = Callable[..., Path]


@pytest.mark.parametrize("decoder", ["documented", "label_studio_sdk"])
def test_brushes_are_the_masks(export: Export, decoder: str) -> None:
    if decoder == "label_studio_sdk":
        brush = pytest.importorskip("label_studio_sdk.converter.brush")
    tasks = json.loads((export("labelstudio") / "tasks-00000.json").read_text())
    values = {name: index for index, name in enumerate(CLASSES, start=1)} | {"ignore": IGNORE}
    assert [task["data"]["image_id"] for task in tasks] == list(MASKS)
    for task in tasks:
        expected = MASKS[task["data"]["image_id"]]
        found = np.zeros_like(expected)
        (prediction,) = task["predictions"]
        for result in prediction["result"]:
            height, width = result["original_height"], result["original_width"]
            assert (height, width) == expected.shape
            assert (result["type"], result["score"]) == ("brushlabels", 0.2)
            run_lengths = result["value"]["rle"]
            if decoder == "documented":
                region = decode_brush(run_lengths, height=height, width=width)
            else:
                region = brush.decode_rle(run_lengths).reshape(height, width, 4)[..., 3] == 255
            (name,) = result["value"]["brushlabels"]
            found[region] = values[name]
        np.testing.assert_array_equal(found, expected)


def test_the_configuration_has_all_labels(export: Export) -> None:
    root = export("labelstudio")
    config = ET.fromstring((root / "config.xml").read_text())  # noqa: S314 - our own
    labels = config.findall("BrushLabels/Label")
    assert [label.get("value") for label in labels] == [*CLASSES, "ignore"]
    assert labels[0].get("background") == "#800000"
    task = json.loads((root / "tasks-00000.json").read_text())[0]
    result = task["predictions"][0]["result"][0]
    image, brushes = config.find("Image"), config.find("BrushLabels")
    assert image is not None
    assert brushes is not None
    assert (result["from_name"], result["to_name"]) == (brushes.get("name"), image.get("name"))
    assert image.get("value") == "$image"
    assert task["data"]["image"] == "s3://bucket/images/plain.PNG"
    assert 0 < task["predictions"][0]["score"] <= 1


def test_many_tasks_are_several_files(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_studio, "TASKS_PER_FILE", 3)
    root = export("labelstudio")
    files = sorted(root.glob("tasks-*.json"))
    assert [len(json.loads(path.read_text())) for path in files] == [3, 3]


def test_a_class_may_be_named_ignore() -> None:
    assert ignore_label(["cat"]) == "ignore"
    assert ignore_label(["ignore", "_ignore_"]) == "__ignore__"
