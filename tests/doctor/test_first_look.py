"""What is wrong with most rows is seen before anything is computed."""

from pathlib import Path

import pyarrow as pa
import pytest
from import_cases import make_image, make_mask

from raypipe import storage
from raypipe.doctor.first_look import check_images, check_masks

CLASSES = ("cat", "dog")


def test_images_that_are_there(tmp_path: Path) -> None:
    for number in range(4):
        make_image(tmp_path / f"{number}.jpg", seed=number)
    finding = check_images([str(tmp_path / f"{number}.jpg") for number in range(4)], allowed=0)
    assert finding.status == "ok"


@pytest.mark.parametrize(("allowed", "status"), [(0.5, "warning"), (0.1, "problem")])
@pytest.mark.parametrize("kind", ["missing", "text", "empty", "null", "folder"])
def test_images_that_are_none(tmp_path: Path, kind: str, allowed: float, status: str) -> None:
    make_image(tmp_path / "a.jpg")
    bad = tmp_path / "b.jpg"
    if kind == "folder":
        bad.mkdir()
    elif kind != "missing":
        bad.write_text("" if kind == "empty" else "<html>not found</html>")
    uris = [*[str(tmp_path / "a.jpg")] * 3, None if kind == "null" else str(bad)]
    finding = check_images(uris, allowed=allowed)
    assert finding.status == status
    assert "1 of 4" in finding.found
    assert ("null" if kind == "null" else "b.jpg") in finding.found
    assert "image_uri" in finding.way_out


def masks(tmp_path: Path, values: list[int], labels: list[list[str] | None]) -> pa.Table:
    places = [tmp_path / f"{number}.png" for number in range(len(values))]
    for place, value in zip(places, values, strict=True):
        make_mask(place, value)
    return pa.table({"mask_uri": [str(place) for place in places], "labels": labels})


@pytest.mark.parametrize(
    ("values", "labels", "status"),
    [
        ([1, 2, 255], [["cat"], ["dog"], ["cat"]], "ok"),
        ([1, 2, 1], [None, None, None], "ok"),
        ([2, 1, 1], [["cat"], ["dog"], ["cat"]], "problem"),
        ([2, 1, 1, 1], [["cat"], ["cat"], ["cat"], ["cat"]], "warning"),
        ([3, 7, 1], [["cat"], ["dog"], ["cat"]], "problem"),
        ([3, 1, 1], [["cat"], ["cat"], ["cat"]], "warning"),
    ],
)
def test_masks(tmp_path: Path, values: list[int], labels: list[list[str] | None], status: str) -> None:
    finding = check_masks(masks(tmp_path, values, labels), CLASSES)
    assert finding.status == status
    if status != "ok":
        assert ".png" in finding.found
        assert "--classes" in finding.way_out


def test_masks_that_are_not_there(tmp_path: Path) -> None:
    rows = pa.table({"mask_uri": [str(tmp_path / "absent.png")], "labels": [["cat"]]})
    assert check_masks(rows, CLASSES).status == "problem"


@pytest.mark.parametrize("absent", [False, True])
def test_storage_that_is_away_says_nothing_of_what_the_manifest_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: bool
) -> None:
    """Unless some of it certainly isn't there."""
    uris = [f"s3://bucket/{number}.jpg" for number in range(4)]
    contents: dict[str, Exception] = dict.fromkeys(uris, ConnectionError("the store is away"))
    if absent:
        contents[uris[0]] = FileNotFoundError(uris[0])
    monkeypatch.setattr(storage, "read_many", lambda *_, **__: contents)
    rows = pa.table({"mask_uri": uris, "labels": [["cat"]] * 4})
    if absent:
        assert check_images(uris, allowed=0, raise_outages=True).status == "problem"
        assert check_masks(rows, CLASSES, raise_outages=True).status == "problem"
    else:
        with pytest.raises(ConnectionError):
            check_images(uris, allowed=0, raise_outages=True)
        with pytest.raises(ConnectionError):
            check_masks(rows, CLASSES, raise_outages=True)
        assert check_images(uris, allowed=1, raise_outages=True).status == "warning"
    assert check_images(uris, allowed=0).status == check_masks(rows, CLASSES).status == "problem"
