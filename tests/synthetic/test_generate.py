"""The synthetic dataset: repeatable, exact, and as varied as it says."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from raypipe.data.images import decode_image, decode_mask
from raypipe.data.parts import read_manifest
from raypipe.storage import read_bytes
from raypipe.synthetic.generate import ANIMALS, CLASSES, Scene, draw_scene, generate


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [draw_scene(0, index) for index in range(120)]


def test_scene_is_a_function_of_seed_and_index(scenes: list[Scene]) -> None:
    again = draw_scene(0, 17)
    np.testing.assert_array_equal(again.pixels, scenes[17].pixels)
    np.testing.assert_array_equal(again.mask, scenes[17].mask)
    assert draw_scene(1, 17).pixels.shape != again.pixels.shape or (draw_scene(1, 17).pixels != again.pixels).any()


def test_convention_labels_are_exactly_the_classes_of_the_mask(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.pixels.shape == (*scene.mask.shape, 3)
        assert scene.labels
        assert [CLASSES.index(name) + 1 for name in scene.labels] == [c for c in np.unique(scene.mask) if c]


def test_variety(scenes: list[Scene]) -> None:
    sides = [side for scene in scenes for side in scene.mask.shape]
    assert 96 <= min(sides) < 110
    assert 290 < max(sides) <= 320
    shares = [float((scene.mask > 0).mean()) for scene in scenes]
    assert 0.2 < np.mean(shares) < 0.5
    assert min(shares) > 0.03
    counts = Counter(label for scene in scenes for label in scene.labels)
    assert len(counts) == len(CLASSES) == len(ANIMALS) >= 6
    assert min(counts.values()) >= 8
    assert {len(scene.labels) for scene in scenes} >= {1, 2, 3}


def test_homes_are_shared_but_heads_and_bodies_are_not() -> None:
    assert set(Counter(animal.home for animal in ANIMALS).values()) == {2}
    for values in ({a.emblem for a in ANIMALS}, {a.hue for a in ANIMALS}, {a.body for a in ANIMALS}):
        assert len(values) == len(ANIMALS)


def test_generate(tmp_path: Path) -> None:
    manifest = generate(str(tmp_path), num_images=8, seed=3, sizes=(64, 80))
    assert manifest.classes == CLASSES
    assert manifest.table["split"].to_pylist() == ["train", "train", "train", "val"] * 2
    assert read_manifest(str(tmp_path / "manifest.parquet")).table.equals(manifest.table)
    for index, row in enumerate(manifest.table.to_pylist()):
        scene = draw_scene(3, index, sizes=(64, 80))
        np.testing.assert_array_equal(decode_mask(read_bytes(row["mask_uri"])), scene.mask)
        image = decode_image(read_bytes(row["image_uri"]))
        assert np.abs(image.pixels.astype(int) - scene.pixels).mean() < 12  # JPEG halves the colours' resolution
        assert row["labels"] == list(scene.labels)


def test_generate_twice_gives_the_same_bytes_and_the_dataset_can_be_moved(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate(str(tmp_path / name), num_images=3, sizes=(64, 80))
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len(files) == 7
    for path in files:
        assert (tmp_path / "a" / path).read_bytes() == (tmp_path / "b" / path).read_bytes()
    (tmp_path / "a").rename(tmp_path / "moved")
    row = read_manifest(str(tmp_path / "moved/manifest.parquet")).table.to_pylist()[0]
    assert decode_image(read_bytes(row["image_uri"])).pixels.size


def test_saliency_maps_leave_the_rest_as_it_is(tmp_path: Path) -> None:
    plain = generate(str(tmp_path / "a"), num_images=3, sizes=(64, 80)).table.to_pylist()
    salient = generate(str(tmp_path / "b"), num_images=3, sizes=(64, 80), saliency_errors=0).table.to_pylist()
    for before, after in zip(plain, salient, strict=True):
        assert before["saliency_uri"] is None
        assert read_bytes(before["image_uri"]) == read_bytes(after["image_uri"])
        mask, saliency = (decode_mask(read_bytes(after[name])) for name in ("mask_uri", "saliency_uri"))
        np.testing.assert_array_equal(saliency, 255 * (mask > 0))


def test_convention_objects_are_numbered_and_cover_the_mask(scenes: list[Scene]) -> None:
    assert max(int(scene.objects.max()) for scene in scenes) == 4
    for scene in scenes:
        np.testing.assert_array_equal(scene.objects > 0, scene.mask > 0)
        assert all(len(np.unique(scene.mask[scene.objects == n])) == 1 for n in np.unique(scene.objects))


def test_val_share_is_spread_evenly(tmp_path: Path) -> None:
    splits = generate(str(tmp_path), num_images=10, val_share=0.3, sizes=(32, 40)).table["split"].to_pylist()
    assert splits.count("val") == 3
    assert (
        generate(str(tmp_path), num_images=2, val_share=0, sizes=(32, 40)).table["split"].to_pylist() == ["train"] * 2
    )


@pytest.mark.parametrize("options", [{"num_images": 0}, {"val_share": 1.0}, {"sizes": (16, 64)}, {"sizes": (96, 64)}])
def test_bad_numbers(tmp_path: Path, options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="expected at least 1 image"):
        generate(str(tmp_path), **options)  # type: ignore[arg-type]
