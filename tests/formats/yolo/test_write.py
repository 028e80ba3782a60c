"""YOLO's labels, filled by rasterisers that share nothing with what wrote them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from export_rows import CLASSES, MASKS, SPLITS, make_rows
from matplotlib.path import Path as Outline
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from raypipe.data.names import file_stem

Export = Callable[..., Path]


def polygons(path: Path, shape: tuple[int, ...]) -> list[tuple[int, NDArray[np.float64]]]:
    """Class id and corners in pixels of each line."""
    found = []
    for line in path.read_text().splitlines():
        class_index, *shares = line.split()
        corners = np.array(shares, float).reshape(-1, 2)
        assert len(corners) >= 3
        assert corners.min() >= 0
        assert corners.max() <= 1
        found.append((int(class_index) + 1, corners * (shape[1], shape[0])))
    return found


def fill_by_middles(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Pixels whose middles matplotlib finds in a polygon."""
    rows, columns = np.indices(shape)
    middles = np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)
    mask = np.zeros(shape, np.uint8)
    for class_id, corners in polygons(path, shape):
        mask[Outline(corners).contains_points(middles).reshape(shape)] = class_id
    return mask


def fill_by_pillow(path: Path, shape: tuple[int, ...], *, scale: int = 16) -> NDArray[np.uint8]:
    """Pillow draws outlines as wide as a pixel, so it draws a larger picture."""
    mask = np.zeros(shape, np.uint8)
    for class_id, corners in polygons(path, shape):
        picture = Image.new("1", (shape[1] * scale, shape[0] * scale))
        ImageDraw.Draw(picture).polygon([tuple(corner) for corner in corners * scale - 0.5], fill=1)
        mask[np.array(picture)[scale // 2 :: scale, scale // 2 :: scale]] = class_id
    return mask


@pytest.mark.parametrize("fill", [fill_by_middles, fill_by_pillow])
def test_polygons_are_the_masks(export: Export, fill: Callable[..., NDArray[np.uint8]]) -> None:
    root = export("yolo")
    for number, (image_id, mask) in enumerate(MASKS.items(), start=1):
        path = root / "labels" / SPLITS[number % 2] / f"{file_stem(image_id)}.txt"
        found = fill(path, mask.shape)
        np.testing.assert_array_equal(found, np.where(mask == 255, 0, mask), err_msg=image_id)


def test_a_tolerance_is_held_and_shortens(export: Export) -> None:
    rows, columns = np.indices((200, 240))
    disc = (np.hypot(rows - 90, columns - 110) < 70) & ~(np.hypot(rows - 90, columns - 100) < 20)
    row = replace(make_rows()[0], image_id="disc", folder="val", mask=disc.astype(np.uint8), confidence=None)
    path = export("yolo", [row], tolerance=1.0) / "labels/val/disc.txt"
    short = path.read_text()
    found = fill_by_middles(path, disc.shape) == 1
    assert (found & disc).sum() / (found | disc).sum() > 0.98
    exact = (export("yolo", [row]) / "labels/val/disc.txt").read_text()
    assert len(short) < len(exact) / 5


@pytest.mark.parametrize("copies", [False, True])
def test_names_and_folders_that_hold_what_is_there(export: Export, copies: bool) -> None:
    root = export("yolo", make_rows(image=b"png") if copies else None, copy_images=copies)
    data = yaml.safe_load((root / "data.yaml").read_text())
    assert data["names"] == dict(enumerate(CLASSES))
    assert not list(root.glob("*.txt"))
    for split in SPLITS:
        images = {path.relative_to(root) for path in (root / data[split]).glob("*")}
        labels = {path.relative_to(root) for path in (root / "labels" / split).iterdir()}
        beside = {Path(str(path).replace("images", "labels")).with_suffix(".txt") for path in images}
        assert beside == (labels if copies else set())


def test_both_splits_are_named_where_there_is_one(export: Export) -> None:
    root = export("yolo", [row for row in make_rows() if row.split == "val"])
    data = yaml.safe_load((root / "data.yaml").read_text())
    assert (data["train"], data["val"]) == ("images/val", "images/val")
