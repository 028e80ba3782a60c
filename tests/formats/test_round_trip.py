"""What raypipe exports, it imports: ids, labels, splits and classes come back, and masks to the pixel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from corpus import encode, photo
from export_rows import make_mask
from import_cases import column, imported

from raypipe import storage
from raypipe.data.images import decode_image, decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.names import file_stem
from raypipe.formats.base import MaskRow
from raypipe.formats.labelmap import escape, parse_labelmap, unescape
from raypipe.formats.registry import FORMATS

Export = Callable[..., Path]

CLASSES = (
    *("no", "1e3", "a: b", "🐱", "𠮷", "person/rider", 'a "quoted" \\ name', "null", "#hash", "a:b:c", "true"),
    *(
        "2024-01-01",
        "~",
        "new\nline",
        "*star",
        "&amp",
        "日本",
        "0o7",
        "1_000",
        "-",
        "<b>",
        "'single'",
        "a|b",
        "[x]",
        "é",
    ),
)
"""In no order of letters; what readers of YAML, CSV, XML and labelmaps take for something else."""
IDS = ("plain", "sub/odd id ü", "shot #7", "what?", "a,b;c", '"quoted"', "..", "empty", "unlabelled", "new\nline", "🐱")
SPLITS = ("train", None, "val", "my split/2", "train_aug")


def masks() -> dict[str, np.ndarray]:
    found = {}
    for number, image_id in enumerate(IDS):
        mask = make_mask(number, height=30 + number, width=41)
        shift = number * 3 % (len(CLASSES) - 3)
        found[image_id] = np.where((mask > 0) & (mask < 255), mask + shift, mask).astype(np.uint8)
    found["empty"] = np.zeros((11, 7), np.uint8)
    return found


MASKS = masks()


def labels_of(image_id: str) -> tuple[str, ...] | None:
    """What the mask shows, one class more for one image; nobody looked at another."""
    names = [CLASSES[value - 1] for value in np.unique(MASKS[image_id]).tolist() if 0 < value < 255]
    if image_id == "plain" and CLASSES[-1] not in names:
        names.append(CLASSES[-1])
    return None if image_id == "unlabelled" else tuple(names)


@pytest.fixture
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[MaskRow]:
    folder = tmp_path_factory.mktemp("photos")
    made = []
    for number, (image_id, mask) in enumerate(MASKS.items(), start=1):
        kind = ("JPEG", "PNG", "WEBP")[number % 3]
        path = folder / f"shot #{number}?.{kind.lower()}"
        path.write_bytes(encode(photo(*mask.shape), kind))
        split = SPLITS[number % len(SPLITS)]
        made.append(
            MaskRow(
                image_id=image_id,
                number=number,
                image_uri=str(path),
                folder=file_stem(split or "train"),
                split=split,
                labels=labels_of(image_id),
                mask=mask,
                confidence=None,
            )
        )
    return made


def as_png(row: MaskRow) -> MaskRow:
    return MaskRow(**{**vars(row), "image_uri": row.image_uri.rpartition(".")[0] + ".png"})


def copied(rows: list[MaskRow], *, lossless: bool) -> list[MaskRow]:
    """The rows with the files that are copied; as PNG where the format wants one ending."""
    found = []
    for row in rows:
        data = Path(row.image_uri).read_bytes()
        if lossless:
            import io

            from PIL import Image

            buffer = io.BytesIO()
            Image.fromarray(decode_image(data).pixels).save(buffer, "PNG")
            data = buffer.getvalue()
        found.append(MaskRow(**{**vars(row), "image": data}))
    return found


COMMANDS: dict[str, Callable[[Path], list[object]]] = {
    "coco": lambda root: ["coco", root / "annotations", root / "images"],
    "voc": lambda root: ["voc", root],
    "yolo": lambda root: ["yolo", root],
    "mmseg": lambda root: ["mmseg", root],
    "huggingface": lambda root: ["parquet", root / "data"],
    "labelstudio": lambda root: ["labelstudio-tasks", root],
    "fiftyone": lambda root: ["fiftyone", root],
    "geotiff": lambda root: ["geotiff", root],
}
DRAWN = ("coco", "yolo", "labelstudio")


def read_back(name: str, root: Path, folder: Path) -> Manifest:
    drawn = ["--masks", folder / "drawn"] if name in DRAWN else []
    return imported(*COMMANDS[name](root), *drawn, folder / "m.parquet")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("copies", [False, True])
def test_everything_comes_back(
    export: Export, rows: list[MaskRow], name: str, copies: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    one_suffix = FORMATS[name].one_suffix
    options: dict[str, Any] = {"suffix": ".png"} if one_suffix else {}
    written = copied(rows, lossless=one_suffix) if copies else rows
    root = export(name, written, classes=CLASSES, copy_images=copies, **options)
    found = read_back(name, root, tmp_path_factory.mktemp("m"))

    assert found.classes == CLASSES
    by_id = {row["image_id"]: row for row in found.table.to_pylist()}
    assert set(by_id) == set(IDS)
    if name in ("voc", "mmseg", "yolo", "fiftyone", "geotiff"):
        assert column(found, "image_id") == list(IDS)
    for row in rows:
        back = by_id[row.image_id]
        assert back["labels"] == (None if row.labels is None else sorted(row.labels, key=CLASSES.index)), row.image_id
        assert back["split"] == row.split
        mask = np.where(row.mask == 255, 0, row.mask) if name == "yolo" else row.mask
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(back["mask_uri"])), mask, err_msg=row.image_id)
        assert decode_image(storage.read_bytes(back["image_uri"])).pixels.shape[:2] == row.mask.shape
        if not copies or name == "labelstudio":
            assert back["image_uri"] == row.image_uri
        else:
            assert back["image_uri"].startswith(str(root))


@pytest.mark.parametrize("name", ["voc", "mmseg", "yolo", "fiftyone", "geotiff"])
def test_a_mask_that_was_deleted_is_none(
    export: Export, rows: list[MaskRow], name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = export(name, rows, classes=CLASSES, suffix=".png" if FORMATS[name].one_suffix else None)
    gone = [path for path in root.rglob("plain.*") if path.suffix in (".png", ".txt", ".tif")]
    assert len(gone) == 1
    gone[0].unlink()
    found = read_back(name, root, tmp_path_factory.mktemp("m"))
    assert [row["image_id"] for row in found.table.to_pylist() if row["mask_uri"] is None] == ["plain"]


def test_yaml_says_the_names_to_every_reader(export: Export, rows: list[MaskRow]) -> None:
    text = (export("yolo", rows, classes=CLASSES) / "data.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    assert content["names"] == dict(enumerate(CLASSES))
    for line in text[text.index('"names":') :].splitlines()[1:]:
        number, _, name = line.strip().partition(": ")
        assert number.isdecimal()
        assert name[0] == name[-1] == '"', "readers of YAML 1.2 take 1e3 and no for other things than readers of 1.1"


@pytest.mark.parametrize("name", CLASSES)
def test_names_in_json_are_the_names(export: Export, rows: list[MaskRow], name: str) -> None:
    root = export("mmseg", rows[:1], classes=[name], suffix=".png")
    assert json.loads((root / "metainfo.json").read_text())["metainfo"]["classes"] == ["background", name]


@pytest.mark.parametrize(
    "name",
    [*CLASSES, " lead", "trail ", "\t", "\\", "\\n", "a\\", ":", "::", "# not a comment", "\u2028", "x\r\ny", " "],
)
def test_a_labelmap_holds_any_name(name: str) -> None:
    text = f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{escape(name)}:128,0,0::\n"
    found = parse_labelmap(text)
    assert found.classes == (name,)
    assert found.colors == {(0, 0, 0): 0, (128, 0, 0): 1}
    assert unescape(escape(name)) == name


def test_a_labelmap_of_plain_names_is_as_cvat_writes_it(export: Export, rows: list[MaskRow]) -> None:
    text = (export("voc", rows[:1], classes=["cat", "dining table"], suffix=".png") / "labelmap.txt").read_text()
    assert text.splitlines() == [
        "# label:color_rgb:parts:actions",
        "background:0,0,0::",
        "cat:128,0,0::",
        "dining table:0,128,0::",
    ]


def test_datasets_knows_the_names_in_their_order(
    export: Export, rows: list[MaskRow], monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    root = export("huggingface", copied(rows, lossless=False), classes=CLASSES, copy_images=True)
    found = datasets.load_dataset(str(root), cache_dir=str(tmp_path_factory.mktemp("cache")))
    seen = {}
    for split in found.values():
        for name in ("classes", "labels"):
            feature = split.features[name].feature
            assert isinstance(feature, datasets.ClassLabel)
            assert feature.names == ["background", *CLASSES]
        for row in split:
            seen[row["image_id"]] = row["labels"]
    assert {image_id: labels and [CLASSES[label - 1] for label in labels] for image_id, labels in seen.items()} == {
        row.image_id: None if row.labels is None else list(row.labels) for row in rows
    }
