"""Storage on a web server that shows its folders, as `python -m http.server` does."""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import aiohttp
import pytest

from raypipe import storage
from raypipe.uri import absolute, name_of, relative

NAMES = (
    *("a.jpg", "sub/shot #7.png", "what?.webp", "a b.jpg", "100%.jpg", "a%20b.jpg", "a+b&c=d.jpg", "ü/🐱.jpg"),
    *("a::b.jpg", "x;y,z.jpg", "(1)[2]*.jpg", "~tilde.jpg", "back\\slash.jpg", "12:30.jpg"),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a folder with files of these names, each of which holds its name."""
    folder = tmp_path_factory.mktemp("served")
    for name in NAMES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(name)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_listing_has_the_names_as_on_disk(server: str, slash: str) -> None:
    found = storage.list_files(server + slash)
    assert sorted(str(relative(uri, server)) for uri in found) == sorted(NAMES)
    contents = storage.read_many(found)
    assert {uri: relative(uri, server) for uri in found} == {uri: bytes(contents[uri]).decode() for uri in found}
    assert [name_of(uri) for uri in storage.list_files(f"{server}/sub")] == ["shot #7.png"]
    assert storage.list_files(f"{server}/absent") == []


def test_a_relative_name_finds_the_file_of_that_name(server: str) -> None:
    names = [name for name in NAMES if name not in ("a%20b.jpg", "back\\slash.jpg")]
    found = storage.read_many([absolute(name, server) for name in names])
    assert [bytes(content).decode() for content in found.values()] == names
    assert storage.read_bytes(absolute("a%20b.jpg", server)) == b"a b.jpg", "as in a URL"
    assert storage.read_bytes(storage.join(server, "a%20b.jpg")) == b"a%20b.jpg", "as a listing has it"


def test_a_whole_url_is_read_as_it_is_written(server: str) -> None:
    assert storage.read_bytes(f"{server}/a b.jpg") == b"a b.jpg"
    assert storage.read_bytes(f"{server}/a%20b.jpg") == b"a b.jpg"
    assert storage.read_bytes(f"{server}/sub/shot%20%237.png?x=1#y") == b"sub/shot #7.png"
    assert storage.read_bytes(f"HTTP{server.removeprefix('http')}/a.jpg") == b"a.jpg"


def test_what_is_there_and_what_isnt(server: str) -> None:
    assert storage.exists(f"{server}/sub")
    assert storage.exists(storage.join(server, "what?.webp"))
    assert not storage.exists(f"{server}/absent.jpg")
    with pytest.raises(FileNotFoundError, match=f"{server}/absent.jpg"):
        storage.read_bytes(f"{server}/absent.jpg")


def test_a_server_that_is_away_isnt_taken_for_an_empty_one() -> None:
    with pytest.raises(aiohttp.ClientConnectorError) as error:
        storage.exists("http://127.0.0.1:9/a.jpg")
    assert error.value.__notes__ == ["URI: http://127.0.0.1:9/a.jpg"]
    with pytest.raises(aiohttp.ClientConnectorError):
        storage.list_files("http://127.0.0.1:9/a")
