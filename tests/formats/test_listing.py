"""The images below a folder, and what is left out."""

import io
import os
from pathlib import Path

import pytest
from import_cases import make_image, mark_folder
from PIL import Image

from raypipe import storage
from raypipe.formats.listing import is_hidden, list_images, without_suffix


@pytest.mark.parametrize(
    "path",
    [
        *(".a.jpg", "._a.jpg", "cat/.a.jpg", ".git/a.jpg", "cat/.thumbnails/a.jpg", ".ipynb_checkpoints/a.jpg"),
        *("cat/@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "__MACOSX/cat/a.jpg", "#recycle/a.jpg", "$RECYCLE.BIN/a.jpg"),
        *("System Volume Information/a.jpg", "Thumbs.db", "cat/thumbs.db", "desktop.ini", ".Trash-1000/a.jpg"),
        *(".AppleDouble/a.jpg", ".DS_Store", "cat/.@__thumb/a.jpg"),
    ],
)
def test_hidden(path: str) -> None:
    assert is_hidden(path)


@pytest.mark.parametrize(
    "path", ["a.jpg", "cat/a.b.jpg", "a./b", "x@eaDir/a.jpg", "_a/b.jpg", "MACOSX/a.jpg", "#1/a.jpg", "thumbs/a.jpg"]
)
def test_not_hidden(path: str) -> None:
    assert not is_hidden(path)


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    make_image(tmp_path / "cat/1.jpg")
    make_image(tmp_path / "cat/2", kind="WEBP")
    make_image(tmp_path / "cat/3.JPEG")
    make_image(tmp_path / "cat/4.dat", kind="TIFF")
    make_image(tmp_path / "cat/5.tmp", kind="PNG")
    (tmp_path / "notes.md").write_text("x")
    (tmp_path / "void").touch()
    (tmp_path / "photo.jxl").write_bytes(b"\xff\x0a" + bytes(40))
    (tmp_path / "design.psd").write_bytes(b"8BPS\0\1" + bytes(40))
    (tmp_path / "lost.jpg").symlink_to("nowhere.jpg")
    (tmp_path / "itself").symlink_to("itself")
    (tmp_path / "cat/up").symlink_to("..")
    (tmp_path / "pipe").write_bytes(b"")
    (tmp_path / "pipe").unlink()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "dog").mkdir()
    (tmp_path / "cat/.x.jpg").touch()
    found = list_images(str(tmp_path))
    assert list(found.images) == ["cat/1.jpg", "cat/2", "cat/3.JPEG", "cat/4.dat", "cat/5.tmp"]
    assert found.images["cat/2"] == f"{tmp_path}/cat/2"
    assert found.skipped == {
        "hidden folders": [".hidden"],
        "empty folders": ["dog"],
        "hidden files": ["cat/.x.jpg"],
        "links that lead back to a folder above them": ["cat/up"],
        "links to nothing, sockets and the like": ["itself", "lost.jpg", "pipe"],
        "files that are no images": ["notes.md"],
        "empty files": ["void"],
        "JPEG XL images, which need to be saved as JPEG, PNG or WebP": ["photo.jxl"],
        "Photoshop images, which need to be saved as JPEG, PNG or WebP": ["design.psd"],
    }


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    make_image(tmp_path / "a.jpg")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xe9.jpg")).write_bytes(b"x")
    except OSError:
        pytest.skip("this filesystem has names in UTF-8 only")
    found = list_images(str(tmp_path))
    assert list(found.images) == ["a.jpg"]
    assert found.skipped == {"files whose names aren't UTF-8": ["'\\udce9.jpg'"]}


def test_links_are_followed_and_keep_their_names(tmp_path: Path) -> None:
    make_image(tmp_path / "store/ab12.jpg")
    for number in range(2):
        (tmp_path / f"photos/{number}").mkdir(parents=True)
        (tmp_path / f"photos/{number}/x.jpg").symlink_to(tmp_path / "store/ab12.jpg")
        (tmp_path / f"photos/again{number}").symlink_to(tmp_path / "store")
    # Two links into each other end, and a folder that is linked twice is listed twice.
    (tmp_path / "photos/0/other").symlink_to("../1")
    (tmp_path / "photos/1/other").symlink_to("../0")
    found = list_images(str(tmp_path / "photos"))
    assert list(found.images) == [
        *("0/other/x.jpg", "0/x.jpg", "1/other/x.jpg", "1/x.jpg", "again0/ab12.jpg", "again1/ab12.jpg")
    ]
    assert found.skipped == {"links that lead back to a folder above them": ["0/other/other", "1/other/other"]}


@pytest.mark.parametrize(
    ("path", "expected"),
    [("a.jpg", "a"), ("sub/a.b.jpg", "sub/a.b"), ("a", "a"), ("x.y/a", "x.y/a"), (".jpg", ".jpg"), ("a.", "a")],
)
def test_without_suffix(path: str, expected: str) -> None:
    assert without_suffix(path) == expected


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        list_images(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match=r"no images below .*; found nothing"):
        list_images(str(tmp_path))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(NotADirectoryError, match=r"a\.txt is a file"):
        list_images(str(tmp_path / "a.txt"))
    with pytest.raises(ValueError, match=r"found 1 file that is no image: 'a\.txt'"):
        list_images(str(tmp_path))


def test_a_store(bucket: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 3)).save(buffer, "PNG")
    for key in ("cat/#?%+ é.png", "cat/1", "cat/.x.png", "dog/2.png", "cat//3.png", "/4.png"):
        storage.write_bytes_atomic(f"{bucket}/photos/{key}", buffer.getvalue())
    mark_folder(f"{bucket}/photos/")
    mark_folder(f"{bucket}/photos/dog/")
    storage.write_bytes_atomic(f"{bucket}/photos-old/5.png", buffer.getvalue())
    storage.write_bytes_atomic(f"{bucket}/photos/note", b"")
    for folder in (f"{bucket}/photos", f"{bucket}/photos/"):
        found = list_images(folder)
        assert list(found.images) == ["cat/#?%+ é.png", "cat/1", "dog/2.png"]
        assert [storage.read_bytes(place) for place in found.images.values()] == [buffer.getvalue()] * 3
        assert found.skipped == {
            "hidden files": ["cat/.x.png"],
            "keys with an empty name between slashes": ["/4.png", "cat//3.png"],
            "empty files": ["note"],
        }
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        list_images(f"{bucket}/absent")
