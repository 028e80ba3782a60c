from pathlib import Path
from typing import Any

import numpy as np
import pytest
from corpus import encode
from PIL import Image

from raypipe.data.images import decode_image, encode_png, read_shape, reduced_size
from raypipe.data.truth import as_shown, check_truth, read_truth, unnamed_classes


def test_mask_and_a_digest_of_its_values(tmp_path: Path) -> None:
    mask = np.array([[0, 2, 255], [1, 1, 0]], np.uint8)
    (tmp_path / "a.png").write_bytes(encode_png(mask))
    (tmp_path / "b.png").write_bytes(encode_png(mask[::-1].copy()))
    truth, digest = read_truth(str(tmp_path / "a.png"), num_classes=3)
    np.testing.assert_array_equal(truth, mask)
    assert digest == read_truth(str(tmp_path / "a.png"), num_classes=3)[1]
    assert digest != read_truth(str(tmp_path / "b.png"), num_classes=3)[1]


def test_values_that_are_no_class_ids_are_refused() -> None:
    with pytest.raises(ValueError, match=r"values \[3, 9\], but class ids end at 2"):
        check_truth(encode_png(np.array([[9, 3, 255, 2]], np.uint8)), num_classes=3)


RAW = (24, 40)
"""(height, width) of the picture in the file."""
PICTURE = np.zeros((*RAW, 3), np.uint8)
PICTURE[:9, :14] = 255
PICTURE[16:, 32:] = (255, 0, 0)
TURNS = [5, 6, 7, 8]
KEPT = [1, 2, 3, 4]
KINDS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "AVIF": {"quality": 100},
}


def photograph(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(Image.fromarray(PICTURE), kind, exif=exif.tobytes(), **KINDS[kind])


def mask_of(pixels: np.ndarray) -> np.ndarray:
    """What a person would mark: the bright corner as class 1, the red one as class 2."""
    red, green = pixels[..., 0] > 128, pixels[..., 1] > 128
    return np.where(red & green, 1, np.where(red, 2, 0)).astype(np.uint8)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [*KEPT, *TURNS])
def test_a_masks_pixels_lie_on_the_images(kind: str, orientation: int) -> None:
    data = photograph(kind, orientation)
    decoded = decode_image(data)
    size = (decoded.original_height, decoded.original_width)
    assert read_shape(data) == (*size, orientation)
    shown = mask_of(decoded.pixels)
    assert (np.bincount(shown.reshape(-1)) > 50).all()
    np.testing.assert_array_equal(as_shown(shown, size=size, image=lambda: data), shown)
    if orientation in TURNS:
        assert size == RAW[::-1]
        raw = mask_of(PICTURE)
        assert (as_shown(raw, size=size, image=lambda: data) != shown).mean() < 0.01


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize("max_side", [40, 30, 24, 7, 1])
def test_masks_of_reduced_images_keep_their_own_size(orientation: int, max_side: int) -> None:
    data = photograph("PNG", orientation)
    size = decode_image(data, max_side=max_side).pixels.shape[:2]
    assert size[::-1] == reduced_size(*RAW, max_side)
    found = as_shown(mask_of(PICTURE), size=size, image=lambda: data, max_side=max_side)
    np.testing.assert_array_equal(found, mask_of(decode_image(data).pixels))


@pytest.mark.parametrize("orientation", KEPT)
def test_a_mask_that_no_turn_explains_is_refused(orientation: int) -> None:
    with pytest.raises(ValueError, match=r"the true mask is \(40, 24\).*the image \(24, 40\).*EXIF block doesn't say"):
        as_shown(np.zeros((40, 24), np.uint8), size=RAW, image=lambda: photograph("PNG", orientation))


@pytest.mark.parametrize("shape", [(24, 41), (25, 40), (12, 20), (48, 80), (41, 24), (1, 1)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_mask_of_another_size_is_refused_and_no_image_is_fetched(shape: tuple[int, int], orientation: int) -> None:
    size = RAW if orientation == 1 else RAW[::-1]

    def image() -> bytes:
        raise AssertionError

    with pytest.raises(ValueError, match=r"the true mask is"):
        as_shown(np.zeros(shape, np.uint8), size=size, image=image)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_convention_a_mask_that_fits_is_as_the_image_is_shown(orientation: int) -> None:
    mask = mask_of(PICTURE)
    assert as_shown(mask, size=RAW, image=lambda: photograph("PNG", orientation)) is mask


def test_classes_that_no_label_names() -> None:
    mask = np.array([[0, 1, 3], [255, 3, 2]], np.uint8)
    classes = ("cat", "dog", "ant")
    assert unnamed_classes(mask, ["dog"], classes) == ["cat", "ant"]
    assert unnamed_classes(mask, ["ant", "dog", "cat"], classes) == []
    assert unnamed_classes(np.array([[0, 255]], np.uint8), [], classes) == []
