import errno
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import fsspec
import pytest
from fsspec import AbstractFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from raypipe import storage
from raypipe.faults import blame


def test_join_keeps_single_slashes() -> None:
    assert storage.join("s3://bucket/a/", "/b", "c.txt") == "s3://bucket/a/b/c.txt"


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


def test_many_files_are_read_or_their_errors_told(tmp_path: Path) -> None:
    names = [f"{tmp_path}/a*[1].bin", f"memory://{tmp_path}/b.bin"]
    for name in names:
        storage.write_bytes_atomic(name, name.encode())
    found = storage.read_many([*names, f"{tmp_path}/absent", "nosuch://bucket/a", str(tmp_path)])
    assert [found[name] for name in names] == [name.encode() for name in names]
    assert isinstance(found[f"{tmp_path}/absent"], FileNotFoundError)
    assert isinstance(found["nosuch://bucket/a"], ValueError)
    assert isinstance(found[str(tmp_path)], IsADirectoryError)


def test_relative_and_dotted_local_paths_name_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.bin").write_bytes(b"1")
    monkeypatch.chdir(tmp_path / "sub")
    assert storage.list_files("..") == [f"file://{tmp_path}/a.bin"]
    assert storage.read_bytes("../a.bin") == b"1"


def test_absolute_paths_and_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute("a/b") == f"{tmp_path}/a/b"
    assert storage.absolute(f"file://{tmp_path}/a") == f"{tmp_path}/a"
    assert storage.absolute("s3://bucket/a") == "s3://bucket/a"


def test_write_leaves_no_temporary_file_behind(tmp_path: Path) -> None:
    storage.write_bytes_atomic(str(tmp_path / "x" / "a.bin"), b"1")
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["a.bin"]


def test_listing_shows_no_unfinished_file(tmp_path: Path) -> None:
    (tmp_path / "a.parquet.123.tmp").write_bytes(b"half")
    assert storage.list_files(str(tmp_path)) == []


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
            assert f"file://{tmp_path}/stays.bin" in storage.list_files(str(tmp_path))
        for writer in writers:
            writer.result()
    assert storage.list_files(str(tmp_path)) == [f"file://{tmp_path}/stays.bin"]


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
    assert storage.list_files(str(tmp_path / "a.bin")) == [f"file://{tmp_path}/a.bin"]


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


def test_digest_ignores_the_order_of_keys() -> None:
    assert storage.digest({"a": 1, "b": 2}) == storage.digest({"b": 2, "a": 1})
    assert storage.digest({"a": 1}) != storage.digest({"a": 2})
    assert len(storage.digest([])) == 12


class Server(BaseHTTPRequestHandler):
    """Answers with the code that the path names."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.strip("/")))
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: object) -> None:
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize(("code", "error"), [(404, FileNotFoundError), (403, PermissionError), (410, PermissionError)])
def test_a_servers_refusal_is_the_files_fault(server: str, code: int, error: type[Exception]) -> None:
    assert storage.read_bytes(f"{server}/200") == b"ok"
    with pytest.raises(error):
        storage.read_bytes(f"{server}/{code}")


@pytest.mark.parametrize("code", [429, 503])
def test_a_servers_trouble_is_not_the_files_fault(server: str, code: int) -> None:
    with pytest.raises(aiohttp.ClientResponseError):
        storage.read_bytes(f"{server}/{code}")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("foo://bucket/a", "foo:// can't be opened .Protocol not known: foo"),
        ("github://a", "github:// can't be opened"),
        ("s3://no bucket/a", "expected s3://bucket/key"),
        ("/" + "x" * 300, "no file can be at /xxx"),
    ],
)
def test_what_no_file_can_have_for_a_uri(uri: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        storage.read_bytes(uri)


def test_a_file_name_may_look_like_a_chained_uri(tmp_path: Path) -> None:
    (tmp_path / "a::b").write_bytes(b"1")
    assert storage.read_bytes(f"{tmp_path}/a::b") == b"1"


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
    assert storage.list_files(str(tmp_path)) == sorted(f"file://{uri}" for uri in uris[30:])
    with pytest.raises(FileNotFoundError):
        storage.delete_many(uris[25:35])
    assert len(storage.list_files(str(tmp_path))) <= 10
    storage.delete_many([])


class Guarded(AbstractFileSystem):
    """A store that refuses what is secret, or, once the rights are gone, everything."""

    protocol = "guarded"
    cachable = False
    revoked: ClassVar[bool] = False

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        if self.revoked or "secret" in path:
            error = PermissionError("Access Denied")
            error.__cause__ = Denied()
            raise error
        return b"content"[start:end]


class Denied(Exception):  # noqa: N818 - botocore has its name
    """As botocore's ClientError."""

    response: ClassVar[dict[str, Any]] = {
        "Error": {"Code": "AccessDenied"},
        "ResponseMetadata": {"HTTPStatusCode": 403},
    }


def test_one_refused_object_is_its_own_fault_and_all_of_them_the_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    fsspec.register_implementation("guarded", Guarded, clobber=True)
    monkeypatch.setattr(storage, "_readable", {})

    def blamed(*names: str) -> list[str]:
        found = storage.read_many([f"guarded://bucket/{name}" for name in names]).values()
        return ["read" if isinstance(content, bytes) else blame(content) for content in found]

    assert blamed("secret") == ["node"], "nothing says that this machine may read anything"
    assert blamed("a", "secret") == ["read", "row"]
    assert blamed("secret") == ["row"], "the other one can still be read"
    monkeypatch.setattr(Guarded, "revoked", True)
    assert blamed("a", "secret") == ["node", "node"]
