"""Masks that come back from CVAT as "Segmentation mask 1.1", as its documentation has them."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from corpus import encode
from import_cases import Said, make_image, run
from PIL import Image

from raypipe import storage
from raypipe.data.images import decode_mask
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.formats.voc.corrected import import_corrected_masks

COLORS = {"background": (0, 0, 0), "cat": (10, 200, 30), "dog": (250, 50, 83), "ignore": (1, 1, 1)}
"""CVAT's labels have colours of its own, and come in its own order."""
LABELMAP = "# label:color_rgb:parts:actions\n" + "".join(
    f"{name}:{','.join(map(str, COLORS[name]))}::\n" for name in ("background", "cat", "dog", "ignore")
)
MASK = np.random.default_rng(0).integers(0, 3, (96, 128), dtype=np.uint8)
MASK[:5] = 255
NAMES = {0: "background", 1: "dog", 2: "cat", 255: "ignore"}
"""What the manifest's ids mean: another order than the labelmap's."""


def painted(mask: np.ndarray = MASK) -> Image.Image:
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    for value, name in NAMES.items():
        pixels[mask == value] = COLORS[name]
    return Image.fromarray(pixels)


def as_palette(mask: np.ndarray = MASK) -> Image.Image:
    return painted(mask).quantize(4)


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    rows = []
    for image_id in ("1", "photo 1", "sub/7"):
        make_image(tmp_path / f"images/{image_id}.jpg")
        rows.append(
            {"image_id": f"{image_id}.jpg", "image_uri": f"{tmp_path}/images/{image_id}.jpg", "labels": ["cat"]}
        )
    return Manifest.from_rows(rows, ["dog", "cat"])


def cvat_zip(path: Path, masks: dict[str, bytes], *, labelmap: str = LABELMAP, top: str = "") -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(f"{top}labelmap.txt", labelmap)
        file.writestr(f"{top}ImageSets/Segmentation/default.txt", "\n".join(masks) + "\n")
        for name, data in masks.items():
            file.writestr(f"{top}SegmentationClass/{name}.png", data)
            file.writestr(f"{top}SegmentationObject/{name}.png", data)
    return path


@pytest.mark.parametrize("top", ["", "task_1/"])
@pytest.mark.parametrize("made", [painted, as_palette])
def test_masks_come_back_with_the_manifests_ids(tmp_path: Path, manifest: Manifest, top: str, made) -> None:
    source = cvat_zip(tmp_path / "cvat.zip", {"photo 1": encode(made()), "sub/7": encode(made())}, top=top)
    found, skipped = import_corrected_masks(str(source), manifest, masks=str(tmp_path / "masks"))
    rows = {row["image_id"]: row for row in found.table.to_pylist()}
    assert rows["1.jpg"]["mask_uri"] is None
    for image_id in ("photo 1.jpg", "sub/7.jpg"):
        np.testing.assert_array_equal(decode_mask(storage.read_bytes(rows[image_id]["mask_uri"])), MASK)
        assert rows[image_id]["supervision"] == "mask"
    assert not any(skipped.values())
    assert found.classes == manifest.classes


def test_the_command_reads_an_unpacked_zip_too(tmp_path: Path, manifest: Manifest) -> None:
    write_manifest(manifest, str(tmp_path / "m.parquet"))
    with zipfile.ZipFile(cvat_zip(tmp_path / "cvat.zip", {"1": encode(painted())})) as file:
        file.extractall(tmp_path / "unpacked")
    said = run("corrected-masks", tmp_path / "unpacked", tmp_path / "m.parquet", tmp_path / "new.parquet")
    assert "3 images, 2 classes" in said
    found = read_manifest(str(tmp_path / "new.parquet")).table.to_pylist()
    assert [row["mask_uri"] is not None for row in found] == [True, False, False]
    assert found[0]["mask_uri"].startswith(f"{tmp_path}/masks/")


def test_a_damaged_mask_is_left_out_and_said(tmp_path: Path, manifest: Manifest) -> None:
    odd = Image.new("RGB", (128, 96), (7, 7, 7))
    masks = {"1": encode(painted())[:-100], "photo 1": encode(odd), "sub/7": encode(painted())}
    source = cvat_zip(tmp_path / "cvat.zip", masks)
    found, skipped = import_corrected_masks(str(source), manifest, masks=str(tmp_path / "masks"))
    assert [row["mask_uri"] is not None for row in found.table.to_pylist()] == [False, False, True]
    (reasons,) = skipped.values()
    assert list(skipped) == ["masks that can't be read"]
    assert ["truncated" in reasons[0], "colours that no class has: 7,7,7" in reasons[1]] == [True, True]


def test_what_the_manifest_does_not_have_is_refused(tmp_path: Path, manifest: Manifest) -> None:
    masks = str(tmp_path / "masks")
    other = cvat_zip(tmp_path / "a.zip", {"another": encode(painted())})
    with pytest.raises(ValueError, match="'another' belongs to no row of the manifest"):
        import_corrected_masks(str(other), manifest, masks=masks)
    renamed = cvat_zip(tmp_path / "b.zip", {"1": encode(painted())}, labelmap=LABELMAP.replace("dog:", "puppy:"))
    with pytest.raises(ValueError, match=r"SegmentationClass/1\.png: unknown label 'puppy'"):
        import_corrected_masks(str(renamed), manifest, masks=masks)


def test_an_unused_label_needs_no_class(tmp_path: Path, manifest: Manifest) -> None:
    source = cvat_zip(tmp_path / "a.zip", {"1": encode(painted())}, labelmap=LABELMAP + "horse:9,9,9::\n")
    found, _ = import_corrected_masks(str(source), manifest, masks=str(tmp_path / "masks"))
    assert found.table["mask_uri"][0].is_valid


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.zip", b"garbage", "is no zip"),
        ("b.zip", None, "has no labelmap.txt"),
        ("absent", None, "there is no folder"),
    ],
)
def test_what_is_no_export_of_cvat_is_refused(
    tmp_path: Path, manifest: Manifest, name: str, content: bytes | None, said: str
) -> None:
    write_manifest(manifest, str(tmp_path / "m.parquet"))
    if content is not None:
        (tmp_path / name).write_bytes(content)
    elif name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as file:
            file.writestr("annotations/instances_default.json", "{}")
    with pytest.raises(Said, match=said):
        run("corrected-masks", tmp_path / name, tmp_path / "m.parquet", tmp_path / "new.parquet")
