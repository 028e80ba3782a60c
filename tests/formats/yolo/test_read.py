"""YOLO datasets as people have them; what raypipe exports comes back in tests/formats/test_round_trip.py."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from import_cases import Said, column, imported, make_image, run

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.formats.yolo.polygons import fill
from raypipe.formats.yolo.read import read_yolo

SQUARE = "0.25 0.25 0.75 0.25 0.75 0.75 0.25 0.75"


def dataset(root: Path, data: str, labels: dict[str, str | None], *, images: str = "images") -> Path:
    """Images with their label files; None writes no file."""
    for number, (name, text) in enumerate(labels.items()):
        make_image(root / images / f"{name}.jpg", seed=number)
        if text is not None:
            path = root / images.replace("images", "labels") / f"{name}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (root / "data.yaml").write_text(data)
    return root


LABELS = {"train/1": f"1 {SQUARE}\n", "train/2": f"0 {SQUARE}\n1 0.1 0.1 0.2 0.1 0.2 0.2\n", "val/3": "", "val/4": None}


@pytest.mark.parametrize(
    "data",
    [
        "path: .\ntrain: images/train\nval: images/val\nnames: {0: dog, 1: cat}\n",
        "train: images/train\nval: images/val\nnames: [dog, cat]\nnc: 2\n",
        "train: ./images/train/\nval: [images/val]\nnames:\n  0: dog\n  1: cat\n",
        "path: {root}\ntrain: images/train\nval: images/val\nnames: [dog, cat]\n",
        "train: ../images/train\nval: ../images/val\nnames: ['dog', 'cat']\n",  # as Roboflow writes them
    ],
)
def test_splits_names_and_labels(tmp_path: Path, data: str) -> None:
    root = dataset(tmp_path, data.replace("{root}", str(tmp_path)), LABELS)
    found = imported("yolo", root / "data.yaml", tmp_path / "m.parquet")
    assert found.classes == ("dog", "cat")
    assert column(found, "labels") == [["cat"], ["dog", "cat"], [], None]
    assert column(found, "split") == ["train", "train", "val", "val"]
    assert column(found, "mask_uri") == [None] * 4


def test_lists_of_images(tmp_path: Path) -> None:
    root = dataset(tmp_path, "train: train.txt\nval: val.txt\nnames: [dog, cat]\n", LABELS)
    (root / "train.txt").write_text("./images/train/1.jpg\n\n./images/train/2.jpg\n")
    (root / "val.txt").write_text(f"{root}/images/val/3.jpg\n")
    found = imported("yolo", root, tmp_path / "m.parquet")
    assert column(found, "image_id") == ["images/train/1.jpg", "images/train/2.jpg", "images/val/3.jpg"]


def test_masks_are_drawn_with_the_manifests_ids(tmp_path: Path) -> None:
    root = dataset(tmp_path, "train: images/train\nval: images/val\nnames: [dog, cat]\n", LABELS)
    found = imported("yolo", root, "--masks", tmp_path / "masks", tmp_path / "m.parquet")
    masks = [place and decode_mask(storage.read_bytes(place)) for place in column(found, "mask_uri")]
    assert masks[3] is None
    expected = np.zeros((96, 128), np.uint8)
    expected[24:72, 32:96] = 2
    np.testing.assert_array_equal(masks[0], expected)
    assert not masks[2].any()
    assert [int((masks[1] == value).sum()) for value in (1, 2)] == [48 * 64, fill_area()]


def fill_area() -> int:
    corners = np.array([[0.1, 0.1], [0.2, 0.1], [0.2, 0.2]]) * (128, 96)
    return int(fill(corners, height=96, width=128).sum())


def test_names_are_texts_however_yaml_would_take_them(tmp_path: Path) -> None:
    names = "names:\n  0: no\n  1: 1e3\n  2: 007\n  3: 2024-01-01\n  4: null\n  5: 12:30\n"
    data = f"train: images/train\nval: null\ntest:\n{names}"
    labels = {"train/1": "".join(f"{number} {SQUARE}\n" for number in range(6))}
    found = imported("yolo", dataset(tmp_path, data, labels), tmp_path / "m.parquet")
    assert found.classes == ("no", "1e3", "007", "2024-01-01", "null", "12:30")
    assert column(found, "labels") == [list(found.classes)]


def test_a_small_object_lies_on_a_large_one_and_a_box_is_ignored(tmp_path: Path) -> None:
    text = f"0 0.4 0.4 0.5 0.4 0.5 0.5 0.4 0.5\n1 {SQUARE}\n0 0.9 0.1 0.1 0.1\n"
    root = dataset(tmp_path, "train: images/train\nnames: [dog, cat]\n", {"train/1": text})
    found = imported("yolo", root, "--masks", tmp_path / "masks", tmp_path / "m.parquet")
    mask = decode_mask(storage.read_bytes(column(found, "mask_uri")[0]))
    assert (mask[43, 57], mask[30, 40], mask[10, 115], mask[90, 5]) == (1, 2, 255, 0)


def test_lines_of_no_kind_are_left_out_and_said(tmp_path: Path) -> None:
    text = f"0 {SQUARE}\nx y\n0 1 2\n0 0.1 0.2 0.3 0.4 0.5\n0 nan 0.1 0.2 0.2 0.1 0.3\n0.5 {SQUARE}\n"
    root = dataset(tmp_path, "train: images/train\nnames: [dog]\n", {"train/1": text})
    assert "5 lines that are none of YOLO's" in run("yolo", root, tmp_path / "m.parquet")


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    root = dataset(tmp_path, "train: images/train\nnames: [dog]\n", {"train/1": f"3 {SQUARE}\n"})
    with pytest.raises(Said, match=r"1\.txt, line 1 is of class 3, but data\.yaml has names for 0 to 0"):
        run("yolo", root, tmp_path / "m.parquet")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        ("train: images/train\n", "expected names"),
        ("names: [dog]\n", "names no images"),
        ("train: images/absent\nnames: [dog]\n", r"there is no .*images/absent"),
        ("{[", "can't be read as YAML"),
        ("- a\n", "expected an object"),
        ("train: images/train\nnames: {a: dog}\n", "expected names"),
    ],
)
def test_a_data_yaml_that_cannot_be_read(tmp_path: Path, data: str, said: str) -> None:
    root = dataset(tmp_path, data, {"train/1": f"0 {SQUARE}\n"})
    with pytest.raises(Said, match=said):
        run("yolo", root, tmp_path / "m.parquet")
    (root / "data.yaml").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no data\.yaml"):
        read_yolo(str(root))


@settings(deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(-40, 240), st.integers(-40, 240)), min_size=3, max_size=9),
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_polygons_are_filled_as_others_fill_them(corners: list[tuple[int, int]], height: int, width: int) -> None:
    ring = np.array(corners) / 10 + 0.013  # no middle of a pixel lies on an edge
    rows, columns = np.indices((height, width))
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    crossed = fill(ring, height=height, width=width)
    x, y = ring.T
    odd = np.zeros(len(middles), bool)
    for a, b, c, d in zip(x, y, np.roll(x, -1), np.roll(y, -1), strict=True):
        with np.errstate(divide="ignore", invalid="ignore"):
            at = a + (middles[:, 1] - b) * (c - a) / (d - b)
        odd ^= ((b > middles[:, 1]) != (d > middles[:, 1])) & (at < middles[:, 0])
    np.testing.assert_array_equal(crossed.ravel(), odd)
