"""VOC, mmsegmentation and FiftyOne: masks read back by Pillow, the other files as their documentation has them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from export_rows import CLASSES, MASKS, SPLITS
from PIL import Image

from raypipe.data.names import file_stem
from raypipe.formats.voc.read import read_voc

Export = Callable[..., Path]


@pytest.mark.parametrize(
    ("name", "folder"), [("voc", "SegmentationClass"), ("mmseg", "ann_dir/{}"), ("fiftyone", "{}/labels")]
)
def test_pillow_reads_the_same_masks(export: Export, name: str, folder: str) -> None:
    root = export(name)
    for number, (image_id, mask) in enumerate(MASKS.items(), start=1):
        path = root / folder.format(SPLITS[number % 2]) / f"{file_stem(image_id)}.png"
        with Image.open(path) as image:
            assert image.mode == ("P" if name == "voc" else "L")
            np.testing.assert_array_equal(np.array(image), mask, err_msg=image_id)


def test_voc_lists_and_names(export: Export) -> None:
    root = export("voc")
    lists = {split: (root / f"ImageSets/Segmentation/{split}.txt").read_text().split("\n") for split in SPLITS}
    stems = [file_stem(image_id) for image_id in MASKS]
    assert lists == {"val": [*stems[::2], ""], "train": [*stems[1::2], ""]}
    with Image.open(root / "SegmentationClass/one.png") as image:
        assert set(image.convert("RGB").get_flattened_data()) == {(0, 128, 0)}
    assert (root / "labelmap.txt").read_text().splitlines()[1:3] == ["background:0,0,0::", "cat:128,0,0::"]
    with (root / "images.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["image_id"] for row in rows] == list(MASKS)
    assert rows[0] == {
        "image_id": "plain",
        "file": "JPEGImages/plain.png",
        "image_uri": "s3://bucket/images/plain.PNG",
        "split": "val",
        "labels": '["cat", "dog", "a & b \\"c\\" ü"]',
        "mask": "SegmentationClass/plain.png",
        "height": "37",
        "width": "52",
        "number": "1",
    }


def test_voc_is_what_the_importer_reads(export: Export) -> None:
    root = export("voc")
    (root / "JPEGImages").mkdir()
    for image_id in MASKS:
        (root / f"JPEGImages/{file_stem(image_id)}.png").write_bytes(b"")
    (root / "labels.csv").write_text("image_id,labels\nplain,cat|dog\n")
    draft = read_voc(str(root), labels="labels.csv")
    assert set(draft.table["image_id"].to_pylist()) == {file_stem(image_id) for image_id in MASKS}
    assert None not in draft.table["mask_uri"].to_pylist()
    assert draft.classes == CLASSES


def test_mmseg_tells_its_classes(export: Export) -> None:
    root = export("mmseg")
    content = json.loads((root / "metainfo.json").read_text())
    assert content["metainfo"]["classes"] == ["background", *CLASSES]
    assert content["metainfo"]["palette"][1] == [128, 0, 0]
    assert content["reduce_zero_label"] is False
    assert (root / "splits/val.txt").read_text().splitlines()[0] == "plain"


def test_fiftyone_finds_images_and_names(export: Export) -> None:
    root = export("fiftyone")
    for split in SPLITS:
        images = json.loads((root / split / "data.json").read_text())
        assert set(images) == {path.stem for path in (root / split / "labels").iterdir()}
    assert json.loads((root / "val/data.json").read_text())["plain"] == "s3://bucket/images/plain.PNG"
    targets = {int(value): name for value, name in json.loads((root / "targets.json").read_text()).items()}
    assert targets == dict(enumerate(("background", *CLASSES))) | {255: "ignore"}


def test_fiftyone_looks_into_the_folder_of_copied_images(export: Export) -> None:
    assert not (export("fiftyone", copy_images=True) / "val/data.json").exists()
