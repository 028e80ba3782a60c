import pytest

from raypipe.words import counted


@pytest.mark.parametrize(
    ("what", "one"),
    [
        ("images", "1 image"),
        ("classes", "1 class"),
        ("unused categories", "1 unused category"),
        ("batches", "1 batch"),
        ("boxes", "1 box"),
        ("hidden files", "1 hidden file"),
        ("files that are no images", "1 file that is no image"),
        ("images that no row names", "1 image that no row names"),
        ("rows that name an image again", "1 row that names an image again"),
        ("HEIC images, which need pillow-heif", "1 HEIC image, which needs pillow-heif"),
        ("images have no label file; they teach nothing", "1 image has no label file; they teach nothing"),
        ("rows have labels that they aren't given", "1 row has labels that they aren't given"),
        ("names", "1 name"),
        ("names in the map that no row has", "1 name in the map that no row has"),
        ("of the whole", "1 of the whole"),
    ],
)
def test_one_is_singular(what: str, one: str) -> None:
    assert counted(1, what) == one
    assert counted(0, what) == f"0 {what}"
    assert counted(1_234, what) == f"1,234 {what}"
