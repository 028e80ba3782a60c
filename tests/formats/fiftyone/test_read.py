"""FiftyOne's folders that others made; what raypipe exports comes back in tests/formats/test_round_trip.py."""

import json
from pathlib import Path

import pytest
from import_cases import Said, column, imported, make_image, make_mask, run

TARGETS = {"0": "background", "1": "dog", "2": "cat", "255": "ignore"}


def dataset(root: Path, *, split: str = "") -> Path:
    for number, name in enumerate(("a", "b.c", "d")):
        make_image(root / split / f"data/{name}.jpg", seed=number)
        make_mask(root / split / f"labels/{name}.png", number)
    return root


@pytest.mark.parametrize("split", ["", "val"])
def test_labels_are_those_of_the_masks(tmp_path: Path, split: str) -> None:
    root = dataset(tmp_path, split=split)
    (root / "targets.json").write_text(json.dumps(TARGETS))
    found = imported("fiftyone", root, tmp_path / "m.parquet")
    assert found.classes == ("dog", "cat")
    assert column(found, "labels") == [[], ["dog"], ["cat"]]
    assert column(found, "split") == [split or None] * 3


def test_images_that_data_json_names(tmp_path: Path) -> None:
    root = dataset(tmp_path)
    (root / "data").rename(root / "elsewhere")
    images = {path.stem: str(path) for path in (root / "elsewhere").iterdir()}
    (root / "data.json").write_text(json.dumps(images))
    found = imported("fiftyone", root, "--classes", "dog,cat", tmp_path / "m.parquet")
    assert sorted(column(found, "image_uri")) == sorted(images.values())


@pytest.mark.parametrize(
    ("targets", "said"),
    [
        ({"0": "background", "2": "cat"}, "expected the values 1, 2"),
        ({"a": "b"}, "expected an object from masks' values"),
        (["dog"], "expected an object from masks' values"),
        ({"0": "background"}, "expected the values 1, 2"),
    ],
)
def test_values_are_never_guessed(tmp_path: Path, targets: object, said: str) -> None:
    root = dataset(tmp_path)
    (root / "targets.json").write_text(json.dumps(targets))
    with pytest.raises(Said, match=said):
        run("fiftyone", root, tmp_path / "m.parquet")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    make_image(tmp_path / "photos/a.jpg")
    with pytest.raises(Said, match="has no folder labels/"):
        run("fiftyone", tmp_path, tmp_path / "m.parquet")
    with pytest.raises(Said, match="there is no folder"):
        run("fiftyone", tmp_path / "absent", tmp_path / "m.parquet")
