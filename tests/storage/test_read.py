import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import aiohttp
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raypipe import progress, storage


def test_many_files_are_read_or_their_errors_told(tmp_path: Path) -> None:
    names = [f"{tmp_path}/a*[1].bin", f"memory://{tmp_path}/b.bin"]
    for name in names:
        storage.write_bytes_atomic(name, name.encode())
    found = storage.read_many([*names, f"{tmp_path}/absent", "nosuch://bucket/a", str(tmp_path)])
    assert [found[name] for name in names] == [name.encode() for name in names]
    assert isinstance(found[f"{tmp_path}/absent"], FileNotFoundError)
    assert isinstance(found["nosuch://bucket/a"], ValueError)
    assert isinstance(found[str(tmp_path)], IsADirectoryError)


@pytest.mark.parametrize("kind", ["local", "memory"])
def test_only_a_store_is_waited_for(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that nobody writes, or a mount that never answers, is found out as anything that hangs."""
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    if kind == "memory":
        storage.write_bytes_atomic("memory://waited/a", b"a")
        monkeypatch.setattr(MemoryFileSystem, "cat_file", lambda *_, **__: pipe.read_bytes())
    stalled = threading.Event()

    def read() -> None:
        with progress.working():
            storage.read_many(["memory://waited/a" if kind == "memory" else str(pipe)])

    reader = threading.Thread(target=read)
    reader.start()
    try:
        deadline = time.monotonic() + 0.5
        while time.monotonic() < deadline and not stalled.is_set():
            if progress.seconds_stalled() > 0.2:
                stalled.set()
            time.sleep(0.01)
    finally:
        pipe.open("wb").close()  # ends the wait
        reader.join()
    assert stalled.is_set() == (kind == "local")


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
