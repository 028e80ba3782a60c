"""Inputs of which public reports about comparable tools tell, each with its right value."""

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from import_cases import Said, column, imported, make_image, make_mask, run, write_coco
from PIL import Image

from raypipe import storage
from raypipe.data.images import decode_mask


@pytest.fixture(autouse=True)
def _in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path / "srv"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def test_http(server: str) -> None:
    make_image(Path("srv/img/a.jpg"))
    Path("srv/labels.csv").write_text("image_uri,labels\nimg/a.jpg,cat\n")
    Path("names.csv").write_text("image_uri,labels\na.jpg,cat\n")
    Path("urls.csv").write_text(f"image_uri,labels\n{server}/img/a.jpg,cat\n")
    write_coco(Path("c.json"), ["a.jpg"], [(1, "cat")], [{"image_id": 0, "category_id": 1}])
    write_coco(Path("urls.json"), [f"{server}/img/a.jpg"], [(1, "cat")], [{"image_id": 0, "category_id": 1}])
    for words in (
        ["table", f"{server}/labels.csv"],
        ["coco", "c.json", f"{server}/img"],
        ["coco", "urls.json", "anywhere"],
        ["table", "urls.csv"],
        ["table", "names.csv", "--images", f"{server}/img/"],
    ):
        (place,) = column(imported(*words, "m.parquet"), "image_uri")
        assert place == f"{server}/img/a.jpg"
    Path("lost.csv").write_text(f"image_uri,labels\n{server}/img/b.jpg,cat\n")
    with pytest.raises(Said, match=r"1 of 1 image .*img/b\.jpg"):
        run("table", "lost.csv", "m.parquet")


@pytest.mark.parametrize("name", ["background", "Background", " BACKGROUND", "ignore", "void", "__background__"])
def test_a_class_that_is_reserved(name: str) -> None:
    for number in range(4):
        make_image(Path(f"im/{number}.png"), seed=number)
        make_mask(Path(f"m/{number}.png"), number % 2 + 1)
    rows = "".join(f"im/{i}.png,{[name, 'zebra'][i % 2]},m/{i}.png\n" for i in range(4))
    Path("t.csv").write_text("image_uri,labels,mask_uri\n" + rows)
    with pytest.raises(Said, match=rf"(?i){name.strip()}.*--map"):
        run("table", "t.csv", "m.parquet")
    Path("map.csv").write_text(f"{name},backdrop\n")
    assert "backdrop" in imported("table", "t.csv", "--map", "map.csv", "m.parquet").classes


def write_truth(values: list[int], labels: list[str]) -> None:
    for number, value in enumerate(values):
        make_image(Path(f"im/{number}.png"), seed=number)
        make_mask(Path(f"m/{number}.png"), value)
    rows = "".join(f"im/{i}.png,{label},m/{i}.png\n" for i, label in enumerate(labels))
    Path("t.csv").write_text("image_uri,labels,mask_uri\n" + rows)


def test_masks_of_0_and_255() -> None:
    write_truth([255] * 12, ["lesion"] * 12)
    with pytest.raises(Said, match=r"0 and 255 only.*--mask-values 255=lesion"):
        run("table", "t.csv", "m.parquet")
    manifest = imported("table", "t.csv", "--mask-values", "255=lesion", "m.parquet")
    for place in column(manifest, "mask_uri"):
        assert set(np.unique(decode_mask(storage.read_bytes(place)))) == {0, 1}


def test_linked_class_folder() -> None:
    make_image(Path("photos/cat/1.jpg"))
    make_image(Path("elsewhere/dog/1.jpg"), seed=1)
    Path("photos/dog").symlink_to("../elsewhere/dog")
    Path("photos/dog/again").symlink_to("..")
    Path("photos/cat/2.jpg").symlink_to("../../elsewhere/dog/1.jpg")
    manifest = imported("folder", "photos", "m.parquet")
    assert column(manifest, "image_id") == ["cat/1.jpg", "cat/2.jpg", "dog/1.jpg"]
    assert manifest.classes == ("cat", "dog")
    Path("t.csv").write_text("file,labels\ndog/1,dog\ncat/1.jpg,cat\n")
    assert len(imported("table", "t.csv", "--images", "photos", "m.parquet")) == 2


def test_hidden_folders() -> None:
    shown = ["cat/1.jpg", "dog/1.jpg"]
    hidden = [
        *(".ipynb_checkpoints/1-checkpoint.jpg", "cat/.thumbnails/1.jpg", "cat/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg"),
        *("__MACOSX/cat/._1.jpg", "cat/._1.jpg", "dog/.git/x/1.jpg", "$RECYCLE.BIN/a/1.jpg", "#recycle/1.jpg"),
    ]
    for number, path in enumerate((*shown, *hidden)):
        make_image(Path("photos") / path, seed=number)
    Path("photos/cat/.DS_Store").write_bytes(b"x")
    Path("photos/dog/Thumbs.db").write_bytes(b"x")
    assert column(imported("folder", "photos", "m.parquet"), "image_id") == shown
    assert "hidden" in run("folder", "photos", "m.parquet")


CELLS = {
    """"['cat', 'dog']\"""": ["cat", "dog"],
    '"[""cat"", ""dog""]"': ["cat", "dog"],
    '"{""choices"": [""cat"",""dog""]}"': ["cat", "dog"],
    ' "cat|dog"': ["cat", "dog"],
    "\"('cat', 'dog')\"": ["cat", "dog"],
    '"[""cat""]"': ["cat"],
    '"""cat"""': ["cat"],
    " cat | dog ": ["cat", "dog"],
    "cat||dog|": ["cat", "dog"],
    "[]": None,
    "1.0": ["1.0"],
}


@pytest.mark.parametrize("cell", CELLS)
def test_lists_in_a_cell(cell: str) -> None:
    make_image(Path("p/1.jpg"))
    make_image(Path("p/2.jpg"), seed=1)
    Path("t.csv").write_text(f"file,labels\n1.jpg,{cell}\n2.jpg,cat\n")
    assert column(imported("table", "t.csv", "--images", "p", "m.parquet"), "labels")[0] == CELLS[cell]


@pytest.mark.parametrize(
    "cell",
    [
        '"cat,dog"',
        "cat;dog",
        '"[cat, dog]"',
        "{cat}",
        '"[""cat"", 1.5]"',
        '"[[""cat""]]"',
        '"cat\ndog"',
        '"{""a"": 1}"',
    ],
)
def test_cells_that_may_be_one_name_or_several(cell: str) -> None:
    make_image(Path("p/1.jpg"))
    make_image(Path("p/2.jpg"), seed=1)
    Path("t.csv").write_text(f"file,labels\n2.jpg,cat\n1.jpg,{cell}\n")
    with pytest.raises(Said, match=r"t\.csv, line [34].*'labels'"):
        run("table", "t.csv", "--images", "p", "m.parquet")


def write_voc(masks: dict[str, int], *, labelmap: str | None = None) -> None:
    for number, (name, value) in enumerate(masks.items()):
        make_image(Path(f"v/JPEGImages/{name}.jpg"), seed=number)
        make_mask(Path(f"v/SegmentationClass/{name}.png"), value)
        Path("v/Annotations").mkdir(exist_ok=True)
        Path(f"v/Annotations/{name}.xml").write_text(f"<annotation><object><name> {name}</name></object></annotation>")
    Path("v/ImageSets/Segmentation").mkdir(parents=True)
    Path("v/ImageSets/Segmentation/train.txt").write_text("\n".join(masks))
    if labelmap:
        Path("v/labelmap.txt").write_text(labelmap)


MAP = "# label:color_rgb:parts:actions\nbackground:0,0,0::\ndog:128,0,0::\ncat:0,128,0::\n"


def test_a_labelmap_says_the_order() -> None:
    write_voc({"dog": 1, "cat": 2}, labelmap=MAP)
    assert imported("voc", "v", "m.parquet").classes == ("dog", "cat")


def test_masks_that_contradict_vocs_order() -> None:
    write_voc({"dog": 1, "cat": 2})
    with pytest.raises(Said, match=r"2 of 2 true masks.*--classes"):
        run("voc", "v", "m.parquet")
    assert imported("voc", "v", "--classes", "dog,cat", "m.parquet").classes == ("dog", "cat")


def test_vocs_ids_with_one_name_more() -> None:
    write_voc({"dog": 12, "person": 15, "dining table": 11, "tvmonitor": 20})
    with pytest.raises(Said, match="--classes"):
        run("voc", "v", "m.parquet")
    Path("map.csv").write_text("dining table,diningtable\n")
    manifest = imported("voc", "v", "--map", "map.csv", "--classes", ",".join(VOC), "m.parquet")
    assert manifest.classes[:2] == ("aeroplane", "bicycle")
    assert ["diningtable"] in column(manifest, "labels")


VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def test_colour_masks() -> None:
    write_voc({"dog": 1, "cat": 2}, labelmap=MAP)
    for name, color in (("dog", (128, 0, 0)), ("cat", (0, 128, 0))):
        pixels = np.zeros((96, 128, 3), np.uint8)
        pixels[20:60, 30:80] = color
        Image.fromarray(pixels).save(f"v/SegmentationClass/{name}.png")
    masks = [decode_mask(storage.read_bytes(one)) for one in column(imported("voc", "v", "m.parquet"), "mask_uri")]
    assert [mask[30, 40] for mask in masks] == [1, 2]
    Path("v/labelmap.txt").unlink()
    with pytest.raises(Said, match=r"true masks.*RGB"):
        run("voc", "v", "m.parquet")


def test_numeric_class_names() -> None:
    write_truth(list(range(1, 12)), [str(value) for value in range(1, 12)])
    assert imported("table", "t.csv", "m.parquet").classes == tuple(map(str, range(1, 12)))


def test_the_order_of_classes_can_be_given() -> None:
    write_truth([1, 2, 1], ["dog", "cat", "dog"])
    with pytest.raises(Said, match=r"ids are taken as 1 cat, 2 dog.*--classes"):
        run("table", "t.csv", "m.parquet")
    assert imported("table", "t.csv", "--classes", "dog,cat", "m.parquet").classes == ("dog", "cat")
    write_truth([1, 3, 1], ["a", "c", "a"])
    with pytest.raises(Said, match="values"):
        run("table", "t.csv", "m.parquet")
    Path("names.txt").write_text("a\nb\nc\n")
    assert imported("table", "t.csv", "--classes", "names.txt", "m.parquet").classes == ("a", "b", "c")


@pytest.mark.parametrize(
    "region",
    [[], [[10, 10, 40, 40]], [[]], [[5, 5, 30, 5, 30, 30], []], None, "x", [[5, 5, 9, 9, None, 3]], {"size": 1}],
)
def test_a_region_that_is_none(region: object) -> None:
    for number in range(2):
        make_image(Path(f"img/{number}.jpg"), seed=number)
    whole = [[10, 10, 40, 10, 40, 40, 10, 40]]
    annotations = [
        {"image_id": 0, "category_id": 1, "segmentation": region},
        {"image_id": 1, "category_id": 1, "segmentation": whole},
    ]
    write_coco(Path("c.json"), ["0.jpg", "1.jpg"], [(1, "cat")], annotations)
    manifest = imported("coco", "c.json", "img", "--masks", "masks", "m.parquet")
    assert column(manifest, "labels") == [["cat"], ["cat"]]
    masks = [decode_mask(storage.read_bytes(one)) for one in column(manifest, "mask_uri")]
    assert masks[1][20, 20] == 1
    assert masks[0][20, 25] in (1, 255)
    assert masks[0][80, 80] == 0


@pytest.mark.parametrize(
    "sides", [{"height": 96.0}, {"height": "96"}, {"height": None}, {"width": None, "height": None}]
)
def test_sizes_as_programs_write_them(sides: dict[str, object]) -> None:
    import json

    make_image(Path("img/0.jpg"))
    annotation = {"image_id": 0, "category_id": 1, "segmentation": [[10, 10, 40, 10, 40, 40, 10, 40]]}
    write_coco(Path("c.json"), ["0.jpg"], [(1, "cat")], [annotation])
    content = json.loads(Path("c.json").read_text())
    content["images"][0] |= sides
    Path("c.json").write_text(json.dumps(content))
    (place,) = column(imported("coco", "c.json", "img", "--masks", "masks", "m.parquet"), "mask_uri")
    assert decode_mask(storage.read_bytes(place)).shape == (96, 128)


@pytest.mark.parametrize(
    "name",
    [
        *("images\\a.jpg", "C:\\images\\a.jpg", "~/images/a.jpg", "images/b.jpg", "image/a.jpg", "images/images/a.jpg"),
        *("/nowhere/a.jpg", "images/A.JPG", "images/a.jpg ", "images/a.png", "images/", "images"),
    ],
)
def test_places_that_do_not_exist(name: str) -> None:
    make_image(Path("images/a.jpg"))
    Path("t.csv").write_text(f"image_uri,labels\n{name},cat\n")
    if name.strip() == "images/a.jpg":
        assert len(imported("table", "t.csv", "m.parquet")) == 1
        return
    with pytest.raises(Said, match=r"1 of 1 image.*t\.csv, line 2"):
        run("table", "t.csv", "m.parquet")
    assert not Path("m.parquet").exists()


def test_a_folder_that_does_not_exist() -> None:
    make_image(Path("images/a.jpg"))
    write_coco(Path("c.json"), ["a.jpg"], [(1, "cat")], [{"image_id": 0, "category_id": 1}])
    with pytest.raises(Said, match="images"):
        run("coco", "c.json", "imagse", "m.parquet")
    Path("t.csv").write_text("image_uri,labels\na.jpg,cat\n")
    with pytest.raises(Said, match=r"the nearest is .*images"):
        run("table", "t.csv", "--images", "imagse", "m.parquet")


@pytest.mark.parametrize(
    ("name", "kind"), [("2.jfif", "JPEG"), ("1.jpe", "JPEG"), ("5.ppm", "PPM"), ("1", "JPEG"), ("a.dat", "PNG")]
)
def test_images_with_any_ending(name: str, kind: str) -> None:
    make_image(Path("photos/cat/1.jpg"))
    make_image(Path("photos/cow") / name, kind=kind, seed=1)
    Path("photos/cow/readme.txt").write_text("no image")
    manifest = imported("folder", "photos", "m.parquet")
    assert manifest.classes == ("cat", "cow")
    assert "readme.txt" in run("folder", "photos", "m.parquet")
    Path("t.csv").write_text(f"file,labels\ncow/{name},cow\ncat/1.jpg,cat\n")
    assert len(imported("table", "t.csv", "--images", "photos", "m.parquet")) == 2


def test_heic_is_named_as_unsupported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.data.content.importlib.util.find_spec", lambda _: None)
    head = (24).to_bytes(4, "big") + b"ftypheic" + bytes(4) + b"mif1heic"
    make_image(Path("photos/cat/1.jpg"))
    Path("photos/dog").mkdir()
    Path("photos/dog/1.heic").write_bytes(head + bytes(100))
    assert "HEIC" in run("folder", "photos", "m.parquet")
    Path("t.csv").write_text("image_uri,labels\nphotos/dog/1.heic,dog\n")
    with pytest.raises(Said, match="HEIC images, which need pillow-heif"):
        run("table", "t.csv", "m.parquet")
