"""Which rows have an image."""

import io
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from import_cases import make_image, mark_folder
from PIL import Image

from raypipe import storage
from raypipe.formats.draft import Draft, draft_table
from raypipe.formats.listing import list_images
from raypipe.imports import images as images_module
from raypipe.imports.account import Account
from raypipe.imports.images import find_images
from raypipe.words import counted


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "PNG")
    return buffer.getvalue()


def find(
    names: Sequence[str | None], root: str, *, images: str | None = None, skip_missing: bool = False, **options: Any
) -> tuple[list[str | None], list[bool], str]:
    """URIs, which rows stay, and the account."""
    account = Account()
    draft_options = {name: options.pop(name) for name in ("any_ending", "are_there") if name in options}
    draft = Draft(
        table=draft_table([{"image_uri": name} for name in names]), source="t.csv", root=root, **draft_options
    )
    check = options.pop("check", "auto")
    uris, keep = find_images(draft, images=images, check=check, skip_missing=skip_missing, account=account)
    return uris.to_pylist(), keep.tolist(), str(account)


@pytest.fixture
def photos(tmp_path: Path) -> str:
    for name in ("a.jpg", "b.PNG", "sub/c.d.webp", "shot #7.png", "100%.png", "two.jpg", "two.png", "e+f g.jpeg"):
        make_image(tmp_path / name)
    make_image(tmp_path / "noending", kind="JPEG")
    make_image(tmp_path / "odd.dat", kind="PNG")
    (tmp_path / "text.txt").write_text("no image")
    (tmp_path / "text.jpg").write_text("no image")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "page.jpg").write_bytes(b"<!DOCTYPE html><html>404</html>")
    (tmp_path / "photo.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("name", "path", "with_folder"),
    [
        ("a.jpg", "a.jpg", None),
        (" a.jpg ", "a.jpg", None),
        ("./sub/../a.jpg", "a.jpg", None),
        ("b.PNG", "b.PNG", None),
        ("b", "b.PNG", True),
        ("sub/c.d", "sub/c.d.webp", True),
        ("shot #7.png", "shot #7.png", None),
        ("shot #7", "shot #7.png", True),
        ("100%.png", "100%.png", None),
        ("e+f g.jpeg", "e+f g.jpeg", None),
        ("noending", "noending", None),
        ("odd.dat", "odd.dat", None),
        ("odd", None, True),
        ("two.png", "two.png", True),
    ],
)
def test_names(photos: str, name: str, path: str | None, with_folder: bool | None) -> None:
    for images in (None, photos) if with_folder is None else (photos,):
        if path is None:
            with pytest.raises(ValueError, match="isn't there"):
                find([name], photos, images=images)
        else:
            assert find([name], photos, images=images)[:2] == ([f"{photos}/{path}"], [True])


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.jpg", "isn't there"),
        ("A.JPG", "isn't there; the nearest name is 'a.jpg'"),
        ("sub/sub/c.d.webp", "isn't there; the nearest name is 'sub/c.d.webp'"),
        ("sup/c.d.webp", "isn't there"),
        ("photos\\a.jpg", "has backslashes"),
        ("C:\\photos\\a.jpg", "names a drive of Windows"),
        ("\\\\nas\\photos\\a.jpg", "share of Windows"),
        ("two", "may be two.jpg or two.png: write the ending, too"),
        ("text.txt", "is no image"),
        ("folder.jpg", "isn't there"),
        ("photo.jxl", "is one of the JPEG XL images, which need to be saved as JPEG, PNG or WebP"),
        ("", "names no image"),
        (" ", "names no image"),
        (None, "names no image"),
        ("/nowhere/a.jpg", "isn't there"),
        ("file://host/a.jpg", "is a file of the host 'host'"),
        ("s3://user:pass@bucket/a.jpg", "credentials"),
        ("a.jpg\0", "null byte"),
        ("x" * 5_000, "isn't there"),
    ],
)
def test_rows_that_name_none(photos: str, name: str | None, reason: str) -> None:
    names = ["a.jpg", name]
    with pytest.raises(ValueError, match="1 of 2 images can't be used: ") as refused:
        find(names, photos, images=photos)
    assert reason in str(refused.value)
    assert "(row 1)" in str(refused.value)
    assert "--skip-missing" in str(refused.value)
    assert len(str(refused.value)) < 1_500
    assert find(names, photos, images=photos, skip_missing=True)[1] == [True, False]


@pytest.mark.parametrize(
    ("name", "reason"), [("text.jpg", "is no image"), ("page.jpg", "is no image"), ("empty.jpg", "is empty")]
)
def test_what_files_hold_counts(photos: str, name: str, reason: str) -> None:
    for are_there in (True, False):
        names = [f"{photos}/{one}" for one in ("a.jpg", name)]
        with pytest.raises(ValueError, match=f"1 of 2 images can't be used: '{name}' \\(row 1\\) {reason}") as refused:
            find(names, photos, are_there=are_there)
        assert str(refused.value).endswith("Mend such files, or leave their rows out by --skip-missing")
        assert find(names, photos, are_there=are_there, skip_missing=True)[1] == [True, False]


def test_one_refusal_names_all_kinds(photos: str) -> None:
    names = ["a.jpg", "zzzzzzzz.jpg", "text.jpg", "empty.jpg", "page.jpg", "lost.jpg", "gone.jpg", ""]
    with pytest.raises(ValueError, match="7 of 8 images can't be used: 'zzz") as refused:
        find(names, photos)
    said = str(refused.value)
    assert "'zzzzzzzz.jpg' (row 1) isn't there (and 2 others like it)" in said
    assert "'text.jpg' (row 2) is no image (and 1 other like it)" in said
    assert "'empty.jpg' (row 3) is empty. " in said
    assert "(row 7) names no image. Mend the names" in said


@pytest.mark.parametrize(
    ("number", "missing", "refused"),
    [(99, 1, True), (100, 1, False), (101, 1, False), (199, 2, True), (200, 2, False), (1, 1, True), (300, 0, False)],
)
def test_one_in_a_hundred_may_be_missing(tmp_path: Path, number: int, missing: int, refused: bool) -> None:
    for k in range(missing, number):
        (tmp_path / f"{k}.png").write_bytes(png())
    (tmp_path / "x").mkdir()
    names = [f"{k}.png" for k in range(number)]
    if refused:
        with pytest.raises(ValueError, match=f"{missing} of {counted(number, 'images')}"):
            find(names, str(tmp_path))
        return
    _, keep, account = find(names, str(tmp_path))
    assert keep == [False] * missing + [True] * (number - missing)
    assert f"images: {number - missing} found, {missing} missing or unusable" in account
    assert ("left out" in account) == bool(missing)


def test_all_rows_may_not_be_left_out(photos: str) -> None:
    with pytest.raises(ValueError, match="No row is left"):
        find(["x.jpg", "y.jpg"], photos, skip_missing=True)


def test_images_that_no_row_names_are_counted(photos: str) -> None:
    account = find(["a.jpg", "b"], photos, images=photos)[2]
    assert "images that no row names" in account
    assert "a.jpg" not in account.split("no row names")[1].split("\n")[0]


def test_a_folder_that_is_not_there(photos: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"there is no folder {photos}/sup: the nearest is {photos}/sub"):
        find(["a.jpg"], photos, images=f"{photos}/sup")
    with pytest.raises(NotADirectoryError, match=r"a\.jpg is a file"):
        find(["a.jpg"], photos, images=f"{photos}/a.jpg")


def test_a_message_names_three_and_counts_all(tmp_path: Path) -> None:
    make_image(tmp_path / "a.jpg")
    names = ["a.jpg", *(f"{'very long folder name/' * 10}{k}.jpg" for k in range(5_000))]
    with pytest.raises(ValueError, match="5,000 of 5,001 images") as refused:
        find(names, str(tmp_path))
    assert len(str(refused.value)) < 1_500


def test_a_sample_is_named_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "SAMPLE", 20)
    monkeypatch.setattr(images_module, "LOOKS", 5)
    for k in range(60):
        (tmp_path / f"{k}.png").write_bytes(png())
    names = [f"{k}.png" for k in range(60)]
    _, keep, account = find(names, str(tmp_path), check="sample")
    assert all(keep)
    assert "images: in a sample of" in account
    for k in range(60):
        if k % 10:
            (tmp_path / f"{k}.png").unlink()
    with pytest.raises(ValueError, match=r"of the sample can't be used"):
        find(names, str(tmp_path), check="sample")
    monkeypatch.setattr(images_module, "MOST_ROWS", 59)
    with pytest.raises(ValueError, match=r"of the sample can't be used"):
        find(names, str(tmp_path))
    with pytest.raises(ValueError, match="54 of 60 images can't be used"):
        find(names, str(tmp_path), check="all")


def test_damaged_files_of_a_sample_have_a_clause_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "LOOKS", 5)
    for k in range(60):
        (tmp_path / f"{k}.png").write_bytes(b"no image")
    with pytest.raises(
        ValueError, match=r"5 of 60 images can't be used: '.*\. Of 5 files that were looked into, 5 can't"
    ):
        find([f"{k}.png" for k in range(60)], str(tmp_path))


ODD_KEYS = (
    "shot #7.png",
    "what?.png",
    "100%.png",
    "a+b.png",
    "é ü.png",
    "a%20b.png",
    "x/1",
    "it's (2).png",
    "[a].png",
    "*.png",
)


@pytest.mark.parametrize("check", ["all", "sample"])
def test_keys_of_a_store(bucket: str, check: str) -> None:
    for key in ODD_KEYS:
        storage.write_bytes_atomic(f"{bucket}/p/{key}", png())
    storage.write_bytes_atomic(f"{bucket}/p/empty.png", b"")
    mark_folder(f"{bucket}/p/")
    uris = [f"{bucket}/p/{key}" for key in ODD_KEYS]
    for names, root, images in (
        (ODD_KEYS, f"{bucket}/p", None),
        (ODD_KEYS, "/tmp", f"{bucket}/p"),  # noqa: S108 - nothing is written there
        (uris, "/tmp", None),  # noqa: S108
        ([unicodedata.normalize("NFD", key) for key in ODD_KEYS], f"{bucket}/p", f"{bucket}/p/"),
    ):
        found, keep, account = find(names, root, images=images, check=check)
        assert [str(one).replace("/p//", "/p/") for one in found] == uris
        assert all(keep)
        assert "10 found, 0 missing" in account
    with pytest.raises(ValueError, match="is empty"):
        find(["empty.png"], f"{bucket}/p", check=check)
    with pytest.raises(ValueError, match=r"1 of 11 images.*isn't there"):
        find([*ODD_KEYS, "shot 7.png"], f"{bucket}/p", check=check)
    with pytest.raises(ValueError, match="isn't there"):
        find(["s3://no-such-bucket-of-anyone/a.png"], f"{bucket}/p", check=check)
    assert list(list_images(f"{bucket}/p").images) == sorted({*ODD_KEYS, "empty.png"})


def test_a_hundred_thousand_rows_within_seconds(tmp_path: Path) -> None:
    for k in range(1_000):
        (tmp_path / f"{k % 10}").mkdir(exist_ok=True)
        (tmp_path / f"{k % 10}/{k}.png").write_bytes(png())
    names = [f"{k % 10}/{k}.png" for k in range(1_000)] * 100
    uris, keep, _ = find(names, str(tmp_path))
    assert np.count_nonzero(keep) == len(set(uris)) * 100 == 100_000
