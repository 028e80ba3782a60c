import zipfile
from pathlib import Path

import pytest

from raypipe.formats import archive
from raypipe.formats.archive import open_archive


def test_a_zip_and_its_folder_are_the_same(tmp_path: Path) -> None:
    files = {"a.txt": b"1", "sub/ü b.txt": b"22", "sub/c #1.txt": b""}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.mkdir("empty")
        for name, content in files.items():
            file.writestr(name, content)
            (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "folder" / name).write_bytes(content)
    for source in ("a.zip", "folder"):
        with open_archive(str(tmp_path / source)) as opened:
            assert {name: opened.read(name) for name in opened.names()} == files


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "LARGEST", 1000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("bomb.png", bytes(10**6))
        file.writestr("fine.png", bytes(1000))
    with open_archive(str(tmp_path / "a.zip")) as opened:
        assert len(opened.read("fine.png")) == 1000
        with pytest.raises(ValueError, match=r"bomb\.png is 1,000,000 bytes unpacked"):
            opened.read("bomb.png")


def test_a_damaged_entry_is_an_error_of_its_own(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("a.txt", b"content")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(b"content", b"CONTENT", 1))
    with open_archive(str(tmp_path / "a.zip")) as opened, pytest.raises(ValueError, match=r"a\.txt can't be unpacked"):
        opened.read("a.txt")
