import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from container_files import CountingServer, counting, places_in, write_tar

from raypipe import storage
from raypipe.containers import members
from raypipe.containers.place import member_uri


@pytest.fixture
def server(tmp_path: Path) -> Iterator[CountingServer]:
    with counting(tmp_path) as server:
        yield server


def fill(path: Path, number: int, size: int) -> tuple[dict[str, bytes], dict[str, str]]:
    """Writes a tar; the members' contents, and their fragments' URIs without the container's folder."""
    contents = {f"{index:04d}.jpg": os.urandom(size) for index in range(number)}
    write_tar(path, contents)
    return contents, {name: member_uri(path.name, *place) for name, place in places_in(path).items()}


def read(server: CountingServer, uris: list[str]) -> list[bytes | Exception]:
    found = storage.read_many([f"{server.url}/{uri}" for uri in uris])
    return [found[f"{server.url}/{uri}"] for uri in uris]


def test_neighbours_come_by_one_request(server: CountingServer, tmp_path: Path) -> None:
    contents, uris = fill(tmp_path / "a.tar", 40, 100_000)
    assert read(server, list(uris.values())) == list(contents.values())
    assert len(server.asked) == 1
    assert server.num_bytes <= 1.02 * 40 * 100_000, "no more than headers and padding"


def test_a_request_has_at_most_so_many_bytes(
    server: CountingServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(members, "LARGEST_REQUEST", 450_000)
    contents, uris = fill(tmp_path / "a.tar", 8, 100_000)
    assert read(server, list(uris.values())) == list(contents.values())
    assert [number // 100_000 for _, number in server.asked] == [4, 4]


def test_small_members_are_read_ahead_for_the_next_calls(server: CountingServer, tmp_path: Path) -> None:
    contents, uris = fill(tmp_path / "a.tar", 600, 9_000)
    names = list(uris)
    for start in range(0, len(names), 64):  # another process has every second block of 32
        block = names[start : start + 32]
        assert read(server, [uris[name] for name in block]) == [contents[name] for name in block]
    assert len(server.asked) == 2, "5.8 MB in requests of 4 MiB"


def test_threads_read_ahead_once(server: CountingServer, tmp_path: Path) -> None:
    contents, uris = fill(tmp_path / "a.tar", 256, 3_000)
    blocks = [list(uris)[start : start + 8] for start in range(0, 256, 8)]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda block: read(server, [uris[name] for name in block]), blocks))
    assert found == [[contents[name] for name in block] for block in blocks]
    assert len(server.asked) <= 2


def test_large_members_are_read_once_and_little_else(server: CountingServer, tmp_path: Path) -> None:
    """Calls of other processes lie in between, and every second member isn't wanted."""
    contents, uris = fill(tmp_path / "a.tar", 48, 200_000)
    names = list(uris)[::2]
    for start in range(0, len(names), 8):
        block = names[start : start + 8]
        assert read(server, [uris[name] for name in block]) == [contents[name] for name in block]
    assert server.num_bytes <= 1.2 * 200_000 * len(names)


def test_members_far_apart_are_read_alone(server: CountingServer, tmp_path: Path) -> None:
    contents, uris = fill(tmp_path / "a.tar", 64, 100_000)
    names = [list(uris)[index] for index in (60, 20, 40)]
    for name in names:
        assert read(server, [uris[name]]) == [contents[name]]
    assert server.num_bytes == 300_000


def test_what_is_read_ahead_is_bounded(server: CountingServer, tmp_path: Path) -> None:
    for number in range(members.CONTAINERS + 4):
        contents, uris = fill(tmp_path / f"{number}.tar", 4, 1_000)
        assert read(server, list(uris.values())) == list(contents.values())
    assert len(members._ahead) <= members.CONTAINERS


def test_many_containers_in_one_call(server: CountingServer, tmp_path: Path) -> None:
    wanted = {}
    for number in range(20):
        contents, uris = fill(tmp_path / f"{number}.tar", 4, 1_000)
        wanted |= {uris["0002.jpg"]: contents["0002.jpg"]}
    assert read(server, list(wanted)) == list(wanted.values())
    assert server.num_bytes == 20 * 1_000, "nothing was read ahead"


def check_cut_off(folder: str, tar: Path) -> None:
    """The members that are there are read; the others say why not."""
    contents, uris = fill(tar, 4, 1_000)
    storage.write_bytes_atomic(f"{folder}/{tar.name}", tar.read_bytes()[:3_500])
    found = list(storage.read_many([f"{folder}/{uri}" for uri in uris.values()]).values())
    assert found[:2] == list(contents.values())[:2]
    for error in found[2:]:
        assert isinstance(error, ValueError)
        assert "ends at byte 3500, but a member is said to reach from" in str(error)
    with pytest.raises(ValueError, match="to reach from 900000 to 900001"):
        storage.read_bytes(f"{folder}/{tar.name}#offset=900000&length=1")
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{folder}/absent.tar#offset=0&length=1")


def test_a_container_that_was_cut_off(server: CountingServer, tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    check_cut_off(str(tmp_path), tmp_path / "whole" / "a.tar")
    found = storage.read_many([f"{server.url}/a.tar#offset={offset}&length=9" for offset in (0, 3_495, 9_000)])
    assert [type(content) for content in found.values()] == [bytes, ValueError, ValueError]


def test_a_container_that_was_cut_off_on_s3(bucket: str, tmp_path: Path) -> None:
    check_cut_off(bucket, tmp_path / "a.tar")


def test_an_absurd_length_takes_no_memory(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"a" * 10)
    with pytest.raises(ValueError, match="images have at most 1073741824"):
        storage.read_bytes(f"{tmp_path}/a.tar#offset=0&length=99999999999999")


def test_a_server_without_ranges(server: CountingServer, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"a" * 5_000_000)
    server.knows_ranges = False
    with pytest.raises(ValueError, match="it knows no ranges"):
        storage.read_bytes(f"{server.url}/a.tar#offset=5&length=7")


def test_files_and_places_in_one_call(tmp_path: Path) -> None:
    contents, uris = fill(tmp_path / "a.tar", 2, 100)
    (tmp_path / "odd#name.jpg").write_bytes(b"file")
    wanted = [f"{tmp_path}/odd#name.jpg", f"{tmp_path}/{uris['0001.jpg']}", f"{tmp_path}/absent"]
    found = storage.read_many(wanted)
    assert found[wanted[0]] == b"file"
    assert found[wanted[1]] == contents["0001.jpg"]
    assert isinstance(found[wanted[2]], FileNotFoundError)


def test_an_empty_member(tmp_path: Path) -> None:
    _, uris = fill(tmp_path / "a.tar", 1, 0)
    assert storage.read_bytes(f"{tmp_path}/{uris['0000.jpg']}") == b""


@pytest.fixture(autouse=True)
def _nothing_read_ahead() -> Iterator[None]:
    members._ahead.clear()
    yield
    members._ahead.clear()
