"""The commands of file-formats.md, from top to bottom, on data as the page describes them."""

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from doc_pages import PAGES, commands
from import_cases import column, make_image, make_mask, run, write_coco
from PIL import Image

from raypipe.data.parts import read_manifest

(PAGE,) = (page for page in PAGES if page.name == "file-formats.md")


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("cat/1.jpg", "cat/2.jfif", "dog/1.jpg", "dog/2.jpg")):
        make_image(Path("photos") / name, kind="JPEG", seed=number)
    write = {
        "labels.csv": "image_uri,labels\nphotos/cat/1.jpg,cat\nphotos/dog/1.jpg,cat|dog\n",
        "tags.tsv": 'photo\ttags\nphotos/cat/1.jpg\tcat\nphotos/dog/1.jpg\t"cat,dog"\n',
        "metadata.jsonl": '{"file_name": "photos/cat/1.jpg", "labels": ["cat"]}\n{"file_name": "photos/dog/1.jpg"}\n',
        "attributes.csv": "filename,cat,dog\nphotos/cat/1.jpg,1,0\nphotos/dog/1.jpg,0,1\n",
        "data.yaml": "names:\n  0: dog\n  1: cat\n",
        "lesions.csv": "image_uri,labels,mask_uri\nphotos/cat/1.jpg,lesion,truth/255.png\n",
        "colours.csv": "image_uri,labels,mask_uri\nphotos/cat/1.jpg,cat,truth/colour.png\n",
        "labelmap.txt": "background:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n",
        "synonyms.csv": "image_uri,labels\nphotos/cat/1.jpg,cat|Tabby\nphotos/cat/2.jfif,Cat\n"
        "photos/dog/1.jpg,dog|cat\n",
        "more.csv": "image_uri,labels\nphotos/dog/2.jpg,wolf\n",
        "mended.csv": "image_uri,labels\nphotos/dog/1.jpg,dog\n",
    }
    for name, text in write.items():
        Path(name).write_text(text)
    Path("excel.csv").write_bytes("image_uri;labels\r\nphotos/cat/1.jpg;Bär\r\n".encode("cp1252"))
    make_mask(Path("truth/255.png"), 255)
    pixels = np.zeros((96, 128, 3), np.uint8)
    pixels[20:60, 30:80] = (0, 128, 0)
    Image.fromarray(pixels).save("truth/colour.png")
    for folder in ("JPEGImages", "Annotations", "ImageSets/Segmentation"):
        (Path("VOC2012") / folder).mkdir(parents=True)
    make_image(Path("VOC2012/JPEGImages/1.jpg"))
    Path("VOC2012/Annotations/1.xml").write_text("<annotation><object><name>cat</name></object></annotation>")
    Path("VOC2012/ImageSets/Segmentation/train.txt").write_text("1\n")
    whole = [[10, 10, 40, 10, 40, 40, 10, 40]]
    annotations = [{"image_id": 0, "category_id": 7, "segmentation": whole}, {"image_id": 0, "category_id": 9}]
    write_coco(Path("annotations.json"), ["cat/1.jpg"], [(7, "cat"), (9, "dog")], annotations)


def test_commands(data: None) -> None:
    said = {}
    classes = {}
    for command in commands(PAGE):
        program, name, *words = shlex.split(command.text)
        assert (program, name) == ("raypipe", "import"), command
        said[command.text] = run(*words)
        if "manifest.parquet" in words:
            classes[command.text] = read_manifest("manifest.parquet").classes
    assert len(said) >= 15
    table = "raypipe import table"
    assert classes[f"{table} excel.csv manifest.parquet --encoding cp1252"] == ("Bär",)
    assert classes[f"{table} labels.csv manifest.parquet --classes dog,cat"] == ("dog", "cat")
    assert classes[f"{table} labels.csv manifest.parquet --classes data.yaml"] == ("dog", "cat")
    assert classes[f"{table} synonyms.csv manifest.parquet --map map.csv"] == ("Tabby", "cat", "dog")
    assert classes[f"{table} more.csv --into manifest.parquet"] == ("cat", "dog", "wolf")
    assert classes[f"{table} mended.csv --into manifest.parquet --replace"] == ("cat", "dog", "wolf")
    assert (
        "1 region that can't be drawn"
        in said["raypipe import coco annotations.json photos/ manifest.parquet --masks masks/"]
    )
    corrected = read_manifest("corrected.parquet")
    assert column(corrected, "supervision") == ["mask"]
    assert (
        json.loads(Path("annotations.json").read_text())["images"][0]["file_name"] == column(corrected, "image_id")[0]
    )
