"""Datasets as other programs leave them, from the command to the manifest; kinds 1, 2, 4 and 5 of odd data."""

import json
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from container_files import write_images
from import_cases import Said, column, imported, make_image, make_mask, run, write_coco
from PIL import Image

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.parts import read_manifest


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def photos() -> list[str]:
    names = ["a.jpg", "b.jpg", "sub/c.jpg"]
    for number, name in enumerate(names):
        make_image(Path("photos") / name, seed=number)
    return names


def write(name: str, text: str, *, encoding: str = "utf-8") -> str:
    Path(name).write_bytes(text.encode(encoding))
    return name


TABLES: dict[str, tuple[str, list[str]]] = {
    # Text, and the options that it takes; the labels are always cat, cat and dog, none.
    "Kaggle": ("image_name,tags\na,cat\nb,cat dog\nsub/c,\n", ["--separator", " "]),
    "Kaggle with ids": ("id,target\na,cat\nb,cat|dog\nsub/c,\n", ["--image-column", "id", "--label-column", "target"]),
    "pandas with its index": (",file,labels\n0,a.jpg,cat\n1,b.jpg,cat|dog\n2,sub/c.jpg,\n", []),
    "pandas of lists": ("path,labels\na.jpg,['cat']\nb.jpg,\"['cat', 'dog']\"\nsub/c.jpg,\n", []),
    "Excel": ("Filename;Class\r\na.jpg;cat\r\nb.jpg;cat|dog\r\nsub/c.jpg;\r\n", []),
    "Excel's sep": ("sep=;\r\nfile;labels\r\na.jpg;cat\r\nb.jpg;cat|dog\r\nsub/c.jpg;\r\n", []),
    "Label Studio": ('image,choice\na.jpg,cat\nb.jpg,"{""choices"":[""cat"",""dog""]}"\nsub/c.jpg,\n',
                     ["--label-column", "choice"]),
    "NIH": ("Image Index,Finding Labels\na.jpg,cat\nb.jpg,cat|dog\nsub/c.jpg,\n",
            ["--image-column", "Image Index", "--label-column", "Finding Labels"]),
    "multi-hot": ("filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\nsub/c.jpg,,\n", ["--multi-hot", "cat,dog"]),
    "Roboflow": ("filename, cat, dog\na.jpg, 1, 0\nb.jpg, 1, 1\nsub/c.jpg, , \n", ["--multi-hot", "*"]),
    "multi-hot of pandas": (",filename,cat,dog,split\n0,a.jpg,1.0,0.0,x\n1,b.jpg,True,TRUE,y\n2,sub/c.jpg,,,y\n",
                            ["--multi-hot", "*"]),
    "CelebA": ("image_id,cat,dog\na.jpg,1,-1\nb.jpg,1,1\nsub/c.jpg,,\n",
               ["--multi-hot", "*", "--image-column", "image_id"]),
    "quotes": ('"file","labels"\n"a.jpg","cat"\n"b.jpg","cat|dog"\n"sub/c.jpg",""\n', []),
    "spaces": ("file , labels\na.jpg , cat \nb.jpg,  cat | dog\nsub/c.jpg,  \n", []),
    "the same image again": ("file,labels\na.jpg,cat\nb.jpg,cat\nsub/c.jpg,\nb.jpg,dog\na.jpg,cat\n./a.jpg,\n", []),
    "rows without end": ("file,labels\n\n\na.jpg,cat,,\nb.jpg,cat|dog,\nsub/c.jpg,,\n,,\n", []),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_tables(photos: list[str], name: str) -> None:
    text, options = TABLES[name]
    write("t.csv", text)
    manifest = imported("table", "t.csv", "--images", "photos", *options, "m.parquet")
    assert column(manifest, "image_id") == photos
    assert column(manifest, "labels") == [["cat"], ["cat", "dog"], None]
    assert manifest.classes == ("cat", "dog")


def test_pandas_in_each_format(photos: list[str]) -> None:
    frame = pd.DataFrame({"file": photos, "labels": [["cat"], ["cat", "dog"], None], "n": [1.5, None, 2]})
    frame.to_parquet("t.parquet")
    frame.set_index("file").to_parquet("indexed.parquet")
    frame.to_json("t.jsonl", orient="records", lines=True)
    frame.to_json("t.json", orient="records", indent=1)
    frame.to_json("packed.jsonl.gz", orient="records", lines=True)
    for source in ("t.parquet", "indexed.parquet", "t.jsonl", "t.json", "packed.jsonl.gz"):
        manifest = imported("table", source, "--images", "photos", "m.parquet")
        assert column(manifest, "labels") == [["cat"], ["cat", "dog"], None], source


def test_numbers_of_pandas_are_whole(photos: list[str]) -> None:
    pd.DataFrame({"file": photos, "label": [3.0, None, 10.0]}).to_parquet("t.parquet")
    manifest = imported("table", "t.parquet", "--images", "photos", "m.parquet")
    assert column(manifest, "labels") == [["3"], None, ["10"]]
    assert manifest.classes == ("3", "10")


def test_json_lines_whose_first_row_has_no_label(photos: list[str]) -> None:
    rows: list[dict[str, Any]] = [{"file_name": "a.jpg"}, {"file_name": "b.jpg", "tags": ["cat"]}]
    write("metadata.jsonl", "\n".join(map(json.dumps, rows)))
    manifest = imported("table", "metadata.jsonl", "--images", "photos", "m.parquet")
    assert column(manifest, "labels") == [None, ["cat"]]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a.jpg,cat\nb.jpg,dog\n", [], r"none of the columns.*The first line has to name the columns"),
        ("file,w\na.jpg,3\n", ["--multi-hot", "*"], r"line 2, column 'w': expected 1 or 0, got '3'. Name the columns"),
        ("file,cat\na.jpg,1\n", ["--multi-hot", "cat,dgo"], r"no column 'dgo' \(--multi-hot\)"),
        ("file,labels\na.jpg,cat\n", ["--label-column", "label"], r"no column 'label' .*did you mean 'labels'"),
        ("file,labels\na.jpg,cat\n", ["--id-column", "key"], r"no column 'key' \(--id-column\)"),
        ("file,labels,image_id\na.jpg,cat,\n", [], r"line 2: expected a text or a number as id"),
        ("file,labels\na.jpg,cat,dog\n", [], "line 2: expected 2 cells"),
        ("file,labels\na.jpg,cat\nb.jpg,'cat', 'dog'\n", [], "line 3: expected 2 cells"),
        ('file,labels\na.jpg,"cat, dog"\n', [], r"line 2, column 'labels': 'cat, dog' may be one name or several"),
        ("file,labels\na.jpg,cat/dog\nb.jpg,cow;dog\n", [], r"line 3, column 'labels': 'cow;dog' may be"),
        ("file;labels\na.jpg;cat,dog\n", [], r"line 2, column 'labels'"),
        ("file,labels\na.jpg,background\n", [], "'background' can't be a class"),
        ("file,labels\n" + "x" * 200_000 + ",cat\n", [], "1 of 1 images"),
        ("file,labels\na.jpg," + "x" * 200_000 + ",y\n", [], "line 2: expected 2 cells"),
    ],
)  # fmt: skip
def test_tables_that_are_refused(photos: list[str], text: str, options: list[str], message: str) -> None:
    write("t.csv", text)
    with pytest.raises(Said, match=message) as refused:
        run("table", "t.csv", "--images", "photos", *options, "m.parquet")
    assert len(str(refused.value)) < 1_000
    assert not Path("m.parquet").exists()


@pytest.mark.parametrize("own", ["007", "1e3", "null", "2007_000032", "-1", "a/b", "🐱", "x y", "1.0", "NaN", "no"])
def test_ids_of_the_data_stand_as_they_are(photos: list[str], own: str) -> None:
    write("t.csv", f"image_id,file,labels\n{own},a.jpg,cat\nother,b.jpg,cat\n")
    assert column(imported("table", "t.csv", "--images", "photos", "m.parquet"), "image_id") == [own, "other"]


@pytest.mark.parametrize(
    "name",
    ["shot #7.jpg", "what?.jpg", "100%.jpg", "a+b.jpg", "a%20b.jpg", "Straße é.jpg", "猫.jpg", "a&b=c.jpg", "[1].jpg",
     "it's.jpg", "*.jpg", "~tilde.jpg", "semi;colon.jpg", "back\\slash.jpg", "x::y.jpg", " lead.jpg"],
)  # fmt: skip
def test_odd_names_of_files(name: str) -> None:
    make_image(Path("photos/cat") / name)
    make_image(Path("photos/dog/plain.jpg"), seed=1)
    manifest = imported("folder", "photos", "m.parquet")
    assert column(manifest, "image_id") == [f"cat/{name}", "dog/plain.jpg"]
    assert storage.read_bytes(column(manifest, "image_uri")[0]) == (Path("photos/cat") / name).read_bytes()
    if "\\" in name or name != name.strip():
        return  # in a table, these are refused or trimmed
    write("t.csv", f'file,labels\n"cat/{name}",cat\n')
    assert column(imported("table", "t.csv", "--images", "photos", "m.parquet"), "image_id") == [f"cat/{name}"]


def test_one_photograph_more_renames_nothing(photos: list[str]) -> None:
    rows = "".join(f"{name},cat\n" for name in photos)
    write("t.csv", "image_uri,labels\n" + "".join(f"photos/{row}\n" for row in rows.split()))
    before = column(imported("table", "t.csv", "m.parquet"), "image_id")
    make_image(Path("photos/x/a.jpg"), seed=9)
    write("t.csv", Path("t.csv").read_text() + "photos/x/a.jpg,dog\n")
    assert column(imported("table", "t.csv", "m.parquet"), "image_id") == [*before, "photos/x/a.jpg"]


def test_a_manifest_grows(photos: list[str]) -> None:
    for number in range(3):
        make_mask(Path(f"masks/{number}.png"), number % 2 + 1)
    write("1.csv", "file,labels,mask_uri\na.jpg,dog,masks/0.png\n")
    write("2.csv", "file,labels,mask_uri\nb.jpg,cat,masks/1.png\nsub/c.jpg,dog,masks/0.png\n")
    images = ["--images", "photos"]
    imported("table", "1.csv", *images, "m.parquet")
    said = run("table", "2.csv", *images, "--into", "m.parquet")
    assert "new classes, after those of the manifest: cat" in said
    assert "2 rows added to the 1 of the manifest, 0 replaced" in said
    assert "they are taken as 1 dog, 2 cat" in said
    assert "no row names: 'a.jpg'" not in said
    assert "classes with fewer than 10 images: cat 1, dog 2" in said
    manifest = read_manifest("m.parquet")
    assert manifest.classes == ("dog", "cat")
    values = [decode_mask(storage.read_bytes(place))[30, 40] for place in column(manifest, "mask_uri")]
    assert values == [1, 2, 1]
    with pytest.raises(Said, match=r"2 image_ids are in the manifest already.*--replace"):
        run("table", "2.csv", *images, "--into", "m.parquet")
    write("3.csv", "file,labels\nb.jpg,ant|cat\n")
    said = run("table", "3.csv", *images, "--into", "m.parquet", "--replace")
    assert "0 rows added to the 3 of the manifest, 1 replaced" in said
    manifest = read_manifest("m.parquet")
    assert manifest.classes == ("dog", "cat", "ant")
    assert column(manifest, "labels") == [["dog"], ["cat", "ant"], ["dog"]]
    with pytest.raises(Said, match="absent"):
        run("table", "3.csv", *images, "--into", "absent.parquet")
    with pytest.raises(Said, match="name one of them"):
        run("table", "3.csv", "m.parquet", "--into", "m.parquet")
    with pytest.raises(Said, match="--replace says"):
        run("table", "3.csv", "m.parquet", "--replace")


def test_a_manifest_is_a_table_that_states_its_classes(photos: list[str]) -> None:
    write("t.csv", "file,labels\na.jpg,dog\nb.jpg,1|cat\n")
    for target in ("m.parquet", "parts"):
        run("table", "t.csv", "--images", "photos", "--classes", "dog,cat,1,cow", target)
        first = read_manifest(target)
        again = imported("table", target, "again.parquet")
        assert again.classes == first.classes == ("dog", "cat", "1", "cow")
        assert again.table.equals(first.table)


def test_a_manifest_of_parts_grows(photos: list[str]) -> None:
    write("1.csv", "file,labels\na.jpg,dog\n")
    write("2.csv", "file,labels\nb.jpg,cat\n")
    run("table", "1.csv", "--images", "photos", "parts")
    run("table", "2.csv", "--images", "photos", "--into", "parts")
    manifest = read_manifest("parts")
    assert manifest.classes == ("dog", "cat")
    assert len(manifest) == 2


def test_synonyms_are_merged_in_masks_as_well(photos: list[str]) -> None:
    for number, value in enumerate((1, 2, 3)):
        make_mask(Path(f"masks/{number}.png"), value)
    rows = zip(photos, ("bicycle", "bike", "car"), range(3), strict=True)
    write("t.csv", "file,labels,mask_uri\n" + "".join(f"{name},{label},masks/{n}.png\n" for name, label, n in rows))
    write("map.csv", "bike,bicycle\ncar,\n")
    for dropped, value in (("background", 0), ("ignore", 255)):
        manifest = imported(
            "table", "t.csv", "--images", "photos", "--map", "map.csv", "--dropped", dropped, "m.parquet"
        )
        assert manifest.classes == ("bicycle",)
        assert column(manifest, "labels") == [["bicycle"], ["bicycle"], []]
        masks = [decode_mask(storage.read_bytes(place)) for place in column(manifest, "mask_uri")]
        assert [mask[30, 40] for mask in masks] == [1, 1, value]
        assert [mask[0, 0] for mask in masks] == [0, 0, 0]
    assert decode_mask(Path("masks/1.png").read_bytes())[30, 40] == 2


def test_a_draft_of_a_map_is_a_map(photos: list[str]) -> None:
    write("t.csv", "file,labels\na.jpg,Dog|cat\nb.jpg,dog\nsub/c.jpg,dog\n")
    assert "3 names: map.csv" in run("table", "t.csv", "--images", "photos", "--draft-map", "map.csv")
    assert Path("map.csv").read_text().splitlines() == ["name,new,images", "dog,dog,2", "Dog,dog,1", "cat,cat,1"]
    manifest = imported("table", "t.csv", "--images", "photos", "--map", "map.csv", "m.parquet")
    assert manifest.classes == ("cat", "dog")


@pytest.mark.parametrize("order", ["dog,cat", "cat,dog", "background,dog,cat"])
def test_numbers_of_a_file_that_names_its_classes_mean_those(order: str) -> None:
    """Whatever --classes says: that is the manifest's order."""
    picture = Path("a.jpg")
    make_image(picture)
    write_images(Path("d.parquet"), [picture.read_bytes()] * 3, label=[0, 1, None])
    manifest = imported("parquet", "d.parquet", "--classes", order, "m.parquet")
    assert manifest.classes == tuple(name for name in order.split(",") if name != "background")
    assert column(manifest, "labels") == [["cat"], ["dog"], None]


def whole(**values: Any) -> dict[str, Any]:
    return {"category_id": 1, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]], **values}


CATEGORIES = [(1, "cat"), (2, "dog")]


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"image_id": 99}, "annotations of no image"),
        ({"image_id": None}, "annotations of no image"),
        ({"image_id": [0]}, "annotations of no image"),
        ({"image_id": 0, "category_id": 99}, "annotations of no category"),
        ({"image_id": 0, "category_id": None}, "annotations of no category"),
        ({"image_id": 0, "segmentation": {"size": [1, 1], "counts": "0"}}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": {"size": [96, 128], "counts": "zzz"}}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": {"size": [96, 128], "counts": [1e9]}}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": [[10, 10, float("nan"), 10, 40, 40]]}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": "x", "bbox": None}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": None, "bbox": [1e400, 0, "a", -3]}, "regions that can't be drawn"),
        ({"image_id": 0, "segmentation": 7, "bbox": [-50, -50, 1e6, 1e6]}, "regions that can't be drawn"),
    ],
)
def test_one_bad_annotation_of_coco(photos: list[str], bad: dict[str, Any], said: str) -> None:
    write_coco(Path("c.json"), photos, CATEGORIES, [whole(image_id=1), whole(**bad), whole(image_id=2, category_id=2)])
    output = run("coco", "c.json", "photos", "m.parquet", "--masks", "masks")
    assert f"left out: 1 {said}" in output
    manifest = read_manifest("m.parquet")
    assert column(manifest, "labels")[1:] == [["cat"], ["dog"]]
    masks = [decode_mask(storage.read_bytes(place)) for place in column(manifest, "mask_uri")]
    assert [mask[20, 20] for mask in masks[1:]] == [1, 2]


@pytest.mark.parametrize(
    ("names", "ids"),
    [
        (["a.jpg", "sub/c.jpg"], ["a.jpg", "sub/c.jpg"]),
        (["a.jpg", "a.jpg"], ["a.jpg"]),
        (["a.jpg", "./a.jpg"], ["a.jpg"]),
        (["a.jpg", "photos/../a.jpg", "b.jpg"], ["a.jpg", "b.jpg"]),
    ],
)
def test_names_of_coco_again(photos: list[str], names: list[str], ids: list[str]) -> None:
    annotations = [whole(image_id=number, category_id=number % 2 + 1) for number in range(len(names))]
    write_coco(Path("c.json"), names, CATEGORIES, annotations)
    manifest = imported("coco", "c.json", "photos", "m.parquet")
    assert column(manifest, "image_id") == ids
    if len(ids) < len(names):
        assert column(manifest, "labels")[0] == ["cat", "dog"]


def test_coco_of_a_thousand_categories_through_a_map(photos: list[str]) -> None:
    categories = [(number, f"species {number}") for number in range(1, 1_001)]
    annotations = [
        whole(image_id=0, category_id=999),
        whole(image_id=1, category_id=5),
        whole(image_id=2, category_id=700),
    ]
    write_coco(Path("c.json"), photos, categories, annotations)
    with pytest.raises(Said, match=r"1000 classes.*--map.*--draft-map.*--top"):
        run("coco", "c.json", "photos", "m.parquet", "--masks", "masks")
    write("map.csv", "".join(f"species {number},{'bird' if number > 500 else 'fish'}\n" for number in range(1, 1_001)))
    manifest = imported("coco", "c.json", "photos", "--masks", "masks", "--map", "map.csv", "m.parquet")
    assert manifest.classes == ("fish", "bird")
    masks = [decode_mask(storage.read_bytes(place))[20, 20] for place in column(manifest, "mask_uri")]
    assert masks == [2, 1, 2]
    manifest = imported(
        "coco", "c.json", "photos", "--masks", "masks", "--top", "2", "--dropped", "ignore", "m.parquet"
    )
    values = [decode_mask(storage.read_bytes(place))[20, 20] for place in column(manifest, "mask_uri")]
    assert sorted(values) == [1, 2, 255]


def test_coco_with_a_background_that_is_used(photos: list[str]) -> None:
    categories = [(0, "background"), (1, "cat"), (2, "dog")]
    annotations = [
        whole(image_id=0, category_id=1),
        whole(image_id=0, category_id=0, segmentation=[[50, 50, 60, 50, 60, 60]]),
        whole(image_id=1, category_id=2),
    ]
    write_coco(Path("c.json"), photos[:2], categories, annotations)
    manifest = imported("coco", "c.json", "photos", "--masks", "masks", "m.parquet")
    assert manifest.classes == ("cat", "dog")
    assert column(manifest, "labels") == [["cat"], ["dog"]]
    masks = [decode_mask(storage.read_bytes(place)) for place in column(manifest, "mask_uri")]
    assert [mask[20, 20] for mask in masks] == [1, 2]


def test_coco_masks_of_crowds_alone_are_no_mistake(photos: list[str]) -> None:
    write_coco(Path("c.json"), ["a.jpg"], CATEGORIES, [whole(image_id=0, iscrowd=1)])
    (place,) = column(imported("coco", "c.json", "photos", "--masks", "masks", "m.parquet"), "mask_uri")
    assert set(np.unique(decode_mask(storage.read_bytes(place)))) == {0, 255}


def write_voc(names: list[str], values: list[int], *, entry: str = "{}") -> None:
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        make_image(Path(f"v/JPEGImages/{number}.jpg"), seed=number)
        make_mask(Path(f"v/SegmentationClass/{number}.png"), value)
        Path("v/Annotations").mkdir(exist_ok=True)
        Path(f"v/Annotations/{number}.xml").write_text(f"<annotation><object><name>{name}</name></object></annotation>")
    Path("v/ImageSets/Segmentation").mkdir(parents=True, exist_ok=True)
    lines = [entry.format(number) for number in range(len(names))]
    Path("v/ImageSets/Segmentation/default.txt").write_text("\n".join(lines))


def test_vocs_masks_with_classes_that_are_asked_for_stay_as_they_are() -> None:
    write_voc(["dog", "cat"], [1, 2])
    manifest = imported("voc", "v", "--classes", "dog,cat", "m.parquet")
    values = [decode_mask(storage.read_bytes(place))[30, 40] for place in column(manifest, "mask_uri")]
    assert (manifest.classes, values) == (("dog", "cat"), [1, 2])


def test_lists_of_voc_with_endings() -> None:
    write_voc(["dog", "cat"], [12, 8], entry="{}.jpg")
    manifest = imported("voc", "v", "m.parquet")
    assert column(manifest, "image_id") == ["0.jpg", "1.jpg"]
    assert column(manifest, "labels") == [["dog"], ["cat"]]
    assert None not in column(manifest, "mask_uri")


def test_colour_masks_of_a_table_with_a_labelmap(photos: list[str]) -> None:
    colors = {"cat": (250, 50, 83), "dog": (51, 221, 255)}
    for number, name in enumerate(("cat", "dog")):
        pixels = np.zeros((96, 128, 3), np.uint8)
        pixels[20:60, 30:80] = colors[name]
        Path("masks").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(f"masks/{number}.png")
    write("t.csv", "file,labels,mask_uri\na.jpg,cat,masks/0.png\nb.jpg,dog,masks/1.png\n")
    table = ["table", "t.csv", "--images", "photos"]
    with pytest.raises(Said, match=r"mode RGB.*--classes labelmap\.txt"):
        run(*table, "m.parquet")
    write("labelmap.txt", "background:0,0,0::\ndog:51,221,255::\ncat:250,50,83::\n")
    manifest = imported(*table, "--classes", "labelmap.txt", "m.parquet")
    assert manifest.classes == ("dog", "cat")
    values = [decode_mask(storage.read_bytes(place))[30, 40] for place in column(manifest, "mask_uri")]
    assert values == [2, 1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["table", "photos", "m.parquet"], "holds no table"),
        (["table", "absent.csv", "m.parquet"], r"there is no table .*absent\.csv"),
        (["table", "t.csv", "t.csv"], "is a file, and no .parquet"),
        (["table", "t.csv", "folder.parquet"], "is a folder: name a file in it"),
        (["table", "t.csv"], "name the MANIFEST to write"),
        (["table", "t.csv", "https://host/m.parquet"], r"https://host/m\.parquet can't be written"),
        (["coco", "photos", "photos", "m.parquet"], "photos"),
        (["coco", "t.csv", "photos", "m.parquet"], "is no JSON"),
        (["voc", "photos", "m.parquet"], "no such list"),
        (["folder", "t.csv", "m.parquet"], "is a file"),
        (["table", "t.csv", "--classes", "absent.txt", "m.parquet"], r"there is no file absent\.txt \(--classes\)"),
        (["table", "t.csv", "--map", "absent.csv", "m.parquet"], r"there is no file absent\.csv \(--map\)"),
        (["table", "t.csv", "--into", "absent.parquet"], r"there is no manifest absent\.parquet \(--into\)"),
        (["table", "t.csv", "--map", "photos", "m.parquet"], "photos"),
        (["table", "t.csv", "--mask-values", "300=cat", "m.parquet"], "values from 0 to 255, got '300=cat'"),
        (["table", "t.csv", "--mask-values", "cat", "m.parquet"], "expected VALUE=CLASS"),
    ],
)
def test_mistakes_are_one_message(photos: list[str], words: list[str], message: str) -> None:
    write("t.csv", "image_uri,labels\nphotos/a.jpg,cat\n")
    Path("folder.parquet").mkdir()
    with pytest.raises(Said, match=message) as refused:
        run(*words)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(("there", "asked"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_accents_of_macos(there: Any, asked: Any) -> None:
    make_image(Path("photos") / unicodedata.normalize(there, "Café/é.jpg"))
    write("t.csv", f"file,labels\n{unicodedata.normalize(asked, 'Café/é.jpg')},{unicodedata.normalize('NFD', 'Bär')}\n")
    manifest = imported("table", "t.csv", "--images", "photos", "m.parquet")
    assert column(manifest, "labels") == [["Bär"]]
    assert storage.read_bytes(column(manifest, "image_uri")[0])


def test_a_hundred_thousand_rows_within_seconds(tmp_path: Path) -> None:
    """In a process of its own, so that its memory can be told."""
    for number in range(100):
        make_image(Path(f"photos/{number}.jpg"), seed=number)
    lines = (
        f"{number},{number % 100}.jpg,class {number % 50}|class {number % 7},s{number % 3}" for number in range(100_000)
    )
    write("t.csv", "image_id,file,labels,split\n" + "\n".join(lines) + "\n")
    program = (
        "import re, sys, time; from pathlib import Path; from raypipe.cli import main; start = time.time()\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "status = Path('/proc/self/status').read_text()\n"
        "print('took', time.time() - start, re.search(r'VmHWM:\\s+(\\d+)', status)[1])"
    )
    words = ["import", "table", "t.csv", "--images", "photos", "m.parquet"]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    seconds, memory = (float(word) for word in done.stdout.splitlines()[-1].split()[1:])
    assert seconds < 30
    assert memory < 800_000  # KiB
    assert "100,000 images, 50 classes" in done.stdout
