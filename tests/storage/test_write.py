import errno
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raypipe import storage


def test_write_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    storage.write_bytes_atomic(str(tmp_path / "x" / "a.bin"), b"1")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.bin"]


def fails_with(error: Exception) -> Callable[..., None]:
    def fail(*args: object, **kwargs: object) -> None:
        raise error

    return fail


def test_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = str(tmp_path / "a.bin")
    storage.write_bytes_atomic(target, b"old")
    monkeypatch.setattr(Path, "replace", fails_with(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        storage.write_bytes_atomic(target, b"new")
    with pytest.raises(OSError, match="disk full"), storage.writing(target) as file:
        file.write(b"new")
    assert storage.read_bytes(target) == b"old"
    assert os.listdir(tmp_path) == ["a.bin"]  # noqa: PTH208 - temporary files, too


def test_a_folder_is_not_replaced_by_a_file_nor_written_into(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(IsADirectoryError):
        storage.write_bytes_atomic(str(tmp_path / "a"), b"1")
    assert list((tmp_path / "a").iterdir()) == []


def test_a_reader_sees_one_of_several_writers_whole(tmp_path: Path) -> None:
    uri = str(tmp_path / "deep" / "a.bin")
    contents = [bytes([number]) * 300_000 for number in range(4)]

    def write(content: bytes) -> None:
        for _ in range(20):
            storage.write_bytes_atomic(uri, content)

    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(write, content) for content in contents]
        while not all(writer.done() for writer in writers):
            if storage.exists(uri):
                assert storage.read_bytes(uri) in contents
        for writer in writers:
            writer.result()
    assert os.listdir(tmp_path / "deep") == ["a.bin"]  # noqa: PTH208


@pytest.mark.parametrize("error", [None, errno.EPERM])
def test_one_of_many_creates_a_file_also_where_there_are_no_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    if error:
        monkeypatch.setattr(Path, "hardlink_to", fails_with(OSError(error, "no links here")))
    for number in range(20):
        uri = f"{tmp_path}/{number}/a.bin"
        with ThreadPoolExecutor(8) as threads:
            won = list(threads.map(lambda each, uri=uri: storage.create_exclusive(uri, bytes([each])), range(8)))
        assert sum(won) == 1
        assert storage.read_bytes(uri) == bytes([won.index(True)])
        assert os.listdir(tmp_path / str(number)) == ["a.bin"]  # noqa: PTH208


def test_a_link_whose_answer_got_lost_was_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    link = Path.hardlink_to

    def lose(path: Path, target: Path) -> None:
        link(path, target)
        raise FileExistsError

    monkeypatch.setattr(Path, "hardlink_to", lose)
    assert storage.create_exclusive(f"{tmp_path}/a.bin", b"1")
    monkeypatch.undo()
    assert not storage.create_exclusive(f"{tmp_path}/a.bin", b"2")


def test_a_disk_that_is_full_creates_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "hardlink_to", fails_with(OSError(errno.ENOSPC, "disk full")))
    with pytest.raises(OSError, match="disk full"):
        storage.create_exclusive(f"{tmp_path}/a.bin", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_store_without_conditions_is_asked_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe_file = MemoryFileSystem.pipe_file

    def refuse(self: MemoryFileSystem, path: str, value: bytes, mode: str = "overwrite") -> None:
        if mode == "create":
            raise OSError(errno.ENOSYS, "A header you provided implies functionality that is not implemented")
        pipe_file(self, path, value)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", refuse)
    uri = f"memory://{tmp_path}/a.bin"
    assert storage.create_exclusive(uri, b"1")
    assert not storage.create_exclusive(uri, b"2")
    assert storage.read_bytes(uri) == b"1"


def test_a_store_that_refuses_for_another_reason_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFileSystem, "pipe_file", fails_with(PermissionError("read-only")))
    with pytest.raises(PermissionError, match="read-only"):
        storage.create_exclusive(f"memory://{tmp_path}/a.bin", b"1")


@pytest.mark.parametrize("prefix", ["", "memory://"])
def test_a_file_is_written_bit_by_bit_or_not_at_all(tmp_path: Path, prefix: str) -> None:
    uri = f"{prefix}{tmp_path}/deep/file.bin"
    with storage.writing(uri) as file:
        for part in (b"a", b"b"):
            file.write(part)
            assert not storage.exists(uri)
    assert storage.read_bytes(uri) == b"ab"

    def fail() -> None:
        with storage.writing(uri) as file:
            file.write(b"half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert storage.read_bytes(uri) == b"ab"
    assert len(storage.list_files(f"{prefix}{tmp_path}")) == 1


def test_many_files_are_deleted_and_an_error_is_raised(tmp_path: Path) -> None:
    uris = [str(tmp_path / f"{index}.txt") for index in range(40)]
    for uri in uris:
        storage.write_bytes_atomic(uri, b"a")
    storage.delete_many(uris[:30])
    assert storage.list_files(str(tmp_path)) == sorted(uris[30:])
    with pytest.raises(FileNotFoundError):
        storage.delete_many(uris[25:35])
    assert len(storage.list_files(str(tmp_path))) <= 10
    storage.delete_many([])


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"1")
    (tmp_path / "folder").mkdir()
    for uri, named in (
        ("/proc/m.parquet", "/proc/m.parquet"),
        (f"{tmp_path}/folder", f"{tmp_path}/folder"),
        (f"{tmp_path}/file/m.parquet", f"{tmp_path}/file"),
        (f"{tmp_path}/file/deep/m.parquet", f"{tmp_path}/file"),
        (f"{tmp_path}/{'x' * 300}", f"{tmp_path}/{'x' * 300}"),
    ):
        with pytest.raises(OSError, match=r"\[Errno") as error:
            storage.write_bytes_atomic(uri, b"1")
        assert (error.value.filename, error.value.filename2) == (named, None)
        assert error.value.__notes__ == [f"URI: {uri}"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]
    storage.write_bytes_atomic(f"{tmp_path}/{'x' * 255}", b"1")
