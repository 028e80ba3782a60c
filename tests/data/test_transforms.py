"""Augmentations: aligned, repeatable, and within their ranges."""

from functools import partial
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raypipe.data.transforms import ResizedCrop, augment_for_affinity, augmentation_rng
from raypipe.schema import IGNORE

FILL = (11, 22, 33)


def augment_for_classifier(
    pixels: np.ndarray, rng: np.random.Generator, *, crop: int, long_side: tuple[int, int], fill: tuple[int, ...]
) -> np.ndarray:
    """What `LoadClassifierCrops` does."""
    return ResizedCrop.draw(pixels.shape, rng, crop=crop, long_side=long_side).lay_image(pixels, fill=fill)


def augment_with(
    pixels: np.ndarray,
    values: np.ndarray,
    rng: np.random.Generator,
    *,
    given: dict[str, Any],
    crop: int,
    long_side: tuple[int, int],
    fill: tuple[int, ...],
) -> tuple[np.ndarray, np.ndarray]:
    """What the stages do whose crops have maps; `given` says how the map is laid."""
    placed = ResizedCrop.draw(pixels.shape, rng, crop=crop, long_side=long_side)
    return placed.lay_image(pixels, fill=fill), placed.lay_map(values, **given)


augment_with_saliency = partial(augment_with, given={"outside": 0})
augment_for_segmenter = partial(augment_with, given={"outside": IGNORE, "resampling": Image.Resampling.NEAREST})


def photograph(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(40, 216, (height, width, 3)).astype(np.uint8)


def test_rng_is_a_function_of_seed_epoch_repeat_and_id() -> None:
    def draw(*key: object) -> float:
        return float(augmentation_rng(*key).random())  # type: ignore[arg-type]

    assert draw(1, 2, "a/ü") == draw(1, 2, "a/ü")
    assert (
        len({draw(1, 2, "a"), draw(1, 2, "b"), draw(1, 3, "a"), draw(2, 2, "a"), draw(12, 0, "a"), draw(1, 20, "a")})
        == 6
    )
    assert augmentation_rng(0, 1, "a", repeat=2).random() not in {draw(0, 1, "a"), draw(1, 2, "a"), draw(0, 2, "a")}
    # Pinned: another value would change every training run.
    assert augmentation_rng(0, 0, "x").integers(2**32) == 76803917


def cell_colours(rows: int, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """An image whose 8 × 8 blocks have one colour each, and the trimap that says which."""
    trimap = (np.arange(rows * columns) % 200).astype(np.uint8).reshape(rows, columns)
    blocks = np.kron(trimap, np.ones((8, 8), np.uint8))
    return np.stack([blocks] * 3, axis=-1), trimap


@pytest.mark.parametrize(("height", "width"), [(120, 160), (117, 153), (40, 200), (30, 30), (64, 64)])
@pytest.mark.parametrize("crop", [64, 8, 128])
def test_convention_trimap_cells_keep_their_pixels(height: int, width: int, crop: int) -> None:
    image, trimap = cell_colours(-(-height // 8), -(-width // 8))
    image = image[:height, :width]
    for seed in range(30):
        rng = augmentation_rng(seed, 0, "x")
        pixels, labels, _ = augment_for_affinity(image, trimap, rng, crop=crop, fill=(255,) * 3)
        assert pixels.shape == (crop, crop, 3)
        assert labels.shape == (crop // 8, crop // 8)
        blocks = pixels[..., 0].reshape(crop // 8, 8, crop // 8, 8)
        # Within a cell there are only its own colour and the fill of the padded border; cells outside are all fill.
        low = blocks.min(axis=(1, 3))
        assert (low == labels).all()
        assert np.isin(blocks, [255]).sum() + (blocks == labels[:, None, :, None]).sum() >= blocks.size


def test_affinity_mirror_of_an_odd_width_moves_the_padding() -> None:
    image, trimap = cell_colours(1, 2)
    seen = set()
    for seed in range(20):
        pixels, labels, _ = augment_for_affinity(
            image[:, :13], trimap, augmentation_rng(seed, 0, ""), crop=16, fill=(255,) * 3
        )
        row = labels[(labels != IGNORE).any(axis=1)][0].tolist()
        padding = (pixels[pixels[..., 0].min(axis=1) < 255][0, :, 0] == 255).tolist()
        assert padding == ([False] * 13 + [True] * 3 if row == [0, 1] else [True] * 3 + [False] * 13)
        seen.add(tuple(row))
    assert seen == {(0, 1), (1, 0)}


def test_affinity_outside_is_fill_and_ignore() -> None:
    image, trimap = photograph(20, 20), np.ones((3, 3), np.uint8)
    pixels, labels, _ = augment_for_affinity(image, trimap, augmentation_rng(0, 0, "x"), crop=64, fill=FILL)
    assert (labels == 1).sum() == 9
    assert (labels == IGNORE).sum() == 55
    assert (pixels == FILL).all(axis=-1).sum() == 64 * 64 - 20 * 20


def test_affinity_every_place_is_reached() -> None:
    image, trimap = cell_colours(3, 3)
    corners = {
        int(augment_for_affinity(image, trimap, augmentation_rng(s, 0, "x"), crop=16, fill=FILL)[1].min())
        for s in range(60)
    }
    assert corners == {0, 1, 3, 4}


@pytest.mark.parametrize(
    ("crop", "grid", "message"),
    [
        (60, (3, 3), "multiple of 8 as crop, such as 56, got 60"),
        (0, (3, 3), "positive multiple"),
        (64, (2, 3), r"trimap of \(3, 3\) for an image of 20 x 20, got \(2, 3\)"),
    ],
)
def test_affinity_bad_arguments(crop: int, grid: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        augment_for_affinity(
            photograph(20, 20), np.zeros(grid, np.uint8), augmentation_rng(0, 0, ""), crop=crop, fill=FILL
        )


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 375), (1, 300), (300, 1), (1, 1), (64, 64)])
def test_classifier_crop_has_its_size(height: int, width: int) -> None:
    for seed in range(5):
        pixels = augment_for_classifier(
            photograph(height, width), augmentation_rng(seed, 0, "x"), crop=96, long_side=(64, 160), fill=FILL
        )
        assert pixels.shape == (96, 96, 3)
        assert pixels.dtype == np.uint8
        assert pixels.flags.c_contiguous


def test_classifier_small_image_lies_whole_at_a_random_place() -> None:
    image = np.full((20, 40, 3), 200, np.uint8)
    places = set()
    for seed in range(20):
        pixels = augment_for_classifier(image, augmentation_rng(seed, 0, "x"), crop=64, long_side=(40, 40), fill=FILL)
        rows, columns = np.nonzero(~(pixels == FILL).all(axis=-1))
        assert (np.ptp(rows), np.ptp(columns)) == (19, 39)
        places.add((rows.min(), columns.min()))
    assert len(places) > 10


def test_classifier_long_side_covers_its_range() -> None:
    lengths = set()
    for seed in range(60):
        pixels = augment_for_classifier(
            np.full((30, 60, 3), 200, np.uint8),
            augmentation_rng(seed, 0, "x"),
            crop=70,
            long_side=(60, 64),
            fill=FILL,
        )
        columns = np.nonzero(~(pixels == FILL).all(axis=-1))[1]
        lengths.add(int(np.ptp(columns)) + 1)
    assert lengths == {60, 61, 62, 63, 64}


def test_classifier_without_change_is_a_window_or_its_mirror() -> None:
    image = photograph(50, 80)
    flips = set()
    for seed in range(20):
        crop = augment_for_classifier(image, augmentation_rng(seed, 0, "x"), crop=50, long_side=(80, 80), fill=FILL)
        windows = [(x, m) for x in range(31) for m in (1, -1) if np.array_equal(crop, image[:, x : x + 50][:, ::m])]
        assert len(windows) == 1
        flips.add(windows[0][1])
    assert flips == {1, -1}


@pytest.mark.parametrize(("height", "width"), [(60, 80), (81, 41), (20, 20)])
def test_saliency_goes_with_its_image(height: int, width: int) -> None:
    """A saliency map that is the image's own red channel stays so, but for the fill, where it is 0."""
    image = photograph(height, width)
    for seed in range(30):
        given = {"crop": 48, "long_side": (30, 90), "fill": (0, 0, 0)}
        crop, saliency = augment_with_saliency(image, image[..., 0].copy(), augmentation_rng(seed, 0, "x"), **given)
        np.testing.assert_array_equal(saliency, crop[..., 0])
        np.testing.assert_array_equal(crop, augment_for_classifier(image, augmentation_rng(seed, 0, "x"), **given))


def test_saliency_of_another_size_covers_the_image() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 255
    saliency = image[::2, ::2, 0].copy()
    for seed in range(20):
        crop, cropped = augment_with_saliency(
            image, saliency, augmentation_rng(seed, 0, "x"), crop=64, long_side=(50, 70), fill=(0, 0, 0)
        )
        assert (np.abs(crop[..., 0].astype(int) - cropped) > 128).mean() < 0.03


@pytest.mark.parametrize(("long_side", "crop"), [((0, 5), 8), ((9, 5), 8), ((5, 9), 0)])
def test_classifier_bad_arguments(long_side: tuple[int, int], crop: int) -> None:
    with pytest.raises(ValueError, match="long side"):
        augment_for_classifier(photograph(9, 9), augmentation_rng(0, 0, ""), crop=crop, long_side=long_side, fill=FILL)


def test_same_key_gives_the_same_pixels() -> None:
    def once() -> np.ndarray:
        return augment_for_classifier(
            photograph(60, 80), augmentation_rng(3, 1, "k"), crop=64, long_side=(50, 90), fill=FILL
        )

    np.testing.assert_array_equal(once(), once())


def test_fill_is_never_jittered() -> None:
    pixels = augment_for_classifier(
        photograph(10, 10), augmentation_rng(0, 0, ""), crop=64, long_side=(10, 10), fill=FILL
    )
    assert (pixels == FILL).all(axis=-1).sum() == 64 * 64 - 100


@pytest.mark.parametrize("crop", [64, 200])
def test_masks_are_cropped_and_mirrored_with_the_image(crop: int) -> None:
    pixels = photograph(90, 120)
    labels = pixels[..., 0]
    for epoch in range(8):
        rng = augmentation_rng(0, epoch, "a")
        image, mask = augment_for_segmenter(pixels, labels, rng, crop=crop, long_side=(120, 120), fill=FILL)
        outside = (image == FILL).all(axis=-1)
        np.testing.assert_array_equal(mask, np.where(outside, IGNORE, image[..., 0]))
        assert outside.sum() == (crop**2 - 90 * 120 if crop == 200 else 0)
        assert image.shape == (crop, crop, 3)


def test_labels_are_not_mixed_where_they_are_resized() -> None:
    labels = np.kron(np.array([[3, 200], [7, 90]], np.uint8), np.ones((40, 50), np.uint8))
    _, found = augment_for_segmenter(
        photograph(80, 100), labels, augmentation_rng(0, 0, "a"), crop=96, long_side=(61, 61), fill=FILL
    )
    assert set(np.unique(found)) == {3, 7, 90, 200, IGNORE}


def test_the_segmenter_s_crop_is_the_classifier_s() -> None:
    pixels = photograph(90, 120)
    options = {"crop": 64, "long_side": (60, 200), "fill": FILL}
    image, _ = augment_for_segmenter(pixels, pixels[..., 0], augmentation_rng(0, 0, "a"), **options)
    np.testing.assert_array_equal(image, augment_for_classifier(pixels, augmentation_rng(0, 0, "a"), **options))


@pytest.mark.parametrize(("height", "width"), [(20, 40), (81, 41), (13, 13)])
def test_the_inside_is_where_the_image_lies(height: int, width: int) -> None:
    image = np.full((height, width, 3), 200, np.uint8)
    trimap = np.ones((-(-height // 8), -(-width // 8)), np.uint8)
    for seed in range(20):
        placed = ResizedCrop.draw(image.shape, augmentation_rng(seed, 0, "x"), crop=48, long_side=(30, 90))
        laid, _, inside = augment_for_affinity(image, trimap, augmentation_rng(seed, 0, "x"), crop=48, fill=FILL)
        for crop, (top, left, rows, columns) in ((placed.lay_image(image, fill=FILL), placed.inside), (laid, inside)):
            expected = np.zeros((48, 48), bool)
            expected[top : top + rows, left : left + columns] = True
            np.testing.assert_array_equal((crop != FILL).any(axis=-1), expected)
