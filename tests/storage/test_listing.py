import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from raypipe import storage


@pytest.mark.parametrize("prefix", ["", "file://", "memory://"])
def test_round_trip_and_listing(tmp_path: Path, prefix: str) -> None:
    root = f"{prefix}{tmp_path}"
    storage.write_bytes_atomic(storage.join(root, "deep", "b.bin"), b"2")
    storage.write_bytes_atomic(storage.join(root, "a.bin"), b"1")
    storage.write_bytes_atomic(storage.join(root, "a.bin"), b"one")
    assert storage.read_bytes(storage.join(root, "a.bin")) == b"one"
    assert storage.exists(storage.join(root, "deep", "b.bin"))
    assert [uri.rsplit("/", 1)[-1] for uri in storage.list_files(root, suffix=".bin")] == ["a.bin", "b.bin"]
    assert [uri.rsplit("/", 1)[-1] for uri in storage.list_files(root, starts=("de", "b"))] == ["b.bin"]
    assert storage.list_files(root, starts=("b", "c")) == []
    assert storage.list_files(storage.join(root, "absent")) == []


def test_relative_and_dotted_local_paths_name_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"1")
    monkeypatch.chdir(tmp_path / "sub")
    assert storage.list_files("..") == [f"{tmp_path}/a.bin"]
    assert storage.read_bytes("../a.bin") == b"1"


def test_listing_shows_no_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.123.tmp").write_bytes(b"half")
    assert storage.list_files(str(tmp_path)) == []


def test_a_listing_bears_files_and_folders_that_come_and_go(tmp_path: Path) -> None:
    (tmp_path / "stays.bin").write_bytes(b"1")
    ended = time.monotonic() + 1

    def churn(number: int) -> None:
        folder = tmp_path / str(number)
        while time.monotonic() < ended:
            for name in "abc":
                storage.write_bytes_atomic(str(folder / name / "file.bin"), b"1")
            shutil.rmtree(folder)

    with ThreadPoolExecutor(2) as threads:
        writers = [threads.submit(churn, number) for number in range(2)]
        while time.monotonic() < ended:
            assert f"{tmp_path}/stays.bin" in storage.list_files(str(tmp_path))
        for writer in writers:
            writer.result()
    assert storage.list_files(str(tmp_path)) == [f"{tmp_path}/stays.bin"]


@pytest.mark.parametrize("name", [".", "deep"])
def test_a_folder_that_cant_be_listed_isnt_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / "deep").mkdir()
    scandir = os.scandir

    def fail(path: str) -> object:
        if Path(path) == tmp_path / name:
            raise OSError(errno.EIO, "input/output error")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(OSError, match="input/output error"):
        storage.list_files(str(tmp_path))


def test_a_file_is_its_own_listing(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"1")
    assert storage.list_files(str(tmp_path / "a.bin")) == [f"{tmp_path}/a.bin"]
