"""Storage on a real S3 server over the network, and behind a proxy that spoils requests."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs
from botocore.exceptions import EndpointConnectionError

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest
from raypipe.streams import tasks

PROXY = Path(__file__).parents[1] / "servers" / "faulty_proxy.py"


@pytest.fixture
def faulty(bucket: str, s3_url: str, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]) -> Iterator[str]:
    """The bucket behind a proxy that spoils every fifth request."""
    url = serve(sys.executable, str(PROXY), "--upstream", s3_url, "--rate", "0.2", "--seed", "1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    s3fs.S3FileSystem.clear_instance_cache()
    yield bucket
    s3fs.S3FileSystem.clear_instance_cache()


def test_round_trip_and_listing(bucket: str) -> None:
    names = ["a/1.bin", "a/b*[2].bin", "c d/ü.bin"]
    for name in names:
        storage.write_bytes_atomic(storage.join(bucket, name), name.encode())
    assert storage.read_bytes(storage.join(bucket, names[0])) == b"a/1.bin"
    found = storage.read_many([storage.join(bucket, name) for name in names])
    assert list(found.values()) == [name.encode() for name in names]
    assert storage.list_files(storage.join(bucket, "a")) == [storage.join(bucket, name) for name in names[:2]]
    assert storage.list_files(storage.join(bucket, "absent")) == []
    assert storage.exists(storage.join(bucket, names[2]))
    assert not storage.exists(storage.join(bucket, "absent"))


def test_a_listing_by_the_starts_of_names(bucket: str) -> None:
    names = ["a/1.bin", "a/12.bin", "a/2.bin", "a/2/3.bin", "a/3.bin", "a1/1.bin", "12.bin"]
    for name in names:
        storage.write_bytes_atomic(storage.join(bucket, name), b"1")
    found = storage.list_files(storage.join(bucket, "a"), suffix=".bin", starts=("1", "2", "9"))
    assert found == [storage.join(bucket, name) for name in names[:4]]
    assert storage.list_files(storage.join(bucket, "absent"), starts=("1", "2")) == []
    assert storage.list_files("s3://no-such-bucket/a", starts=("1", "2")) == []


def test_what_another_process_writes_is_seen(bucket: str) -> None:
    assert storage.list_files(bucket) == []
    assert not storage.exists(storage.join(bucket, "a"))
    other = s3fs.S3FileSystem(skip_instance_cache=True)
    other.pipe_file(storage.join(bucket, "a"), b"1")
    assert storage.exists(storage.join(bucket, "a"))
    assert storage.list_files(bucket) == [storage.join(bucket, "a")]


def test_what_is_missing_or_forbidden_is_told(bucket: str) -> None:
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(storage.join(bucket, "absent"))
    found = storage.read_many([storage.join(bucket, "absent"), "s3://no-such-bucket/a"])
    assert [type(error) for error in found.values()] == [FileNotFoundError, FileNotFoundError]


def test_manifest_on_s3(bucket: str) -> None:
    uri = storage.join(bucket, "manifest.parquet")
    rows = [{"image_id": "a", "image_uri": storage.join(bucket, "a.jpg"), "labels": ["cat"]}]
    write_manifest(Manifest.from_rows(rows, ("cat",)), uri)
    assert read_manifest(uri).table.to_pylist()[0]["image_uri"] == storage.join(bucket, "a.jpg")
    fs, path = storage.arrow_filesystem(uri)
    assert pq.read_table(path, filesystem=fs).num_rows == 1


def test_every_fifth_request_spoiled_and_nothing_lost(faulty: str) -> None:
    contents = {storage.join(faulty, f"{i}.bin"): os.urandom(50_000) for i in range(60)}
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda item: storage.write_bytes_atomic(*item), contents.items()))
    assert storage.list_files(faulty) == sorted(contents)
    assert storage.read_many(contents) == contents
    assert {uri: storage.read_bytes(uri) for uri in list(contents)[:20]} == dict(list(contents.items())[:20])


def test_an_absent_bucket_has_no_files(bucket: str) -> None:
    assert storage.list_files("s3://no-such-bucket/a") == []
    assert storage.list_files("s3://no-such-bucket") == []
    assert storage.list_files(bucket) == []


def test_a_listing_bears_files_that_come_and_go(bucket: str) -> None:
    storage.write_bytes_atomic(f"{bucket}/a/stays.bin", b"1")

    def churn(number: int) -> None:
        for _ in range(10):
            storage.write_bytes_atomic(f"{bucket}/a/{number}/file.bin", b"1")
            storage.delete(f"{bucket}/a/{number}/file.bin")

    with ThreadPoolExecutor(3) as threads:
        writers = [threads.submit(churn, number) for number in range(3)]
        while not all(writer.done() for writer in writers):
            assert f"{bucket}/a/stays.bin" in storage.list_files(f"{bucket}/a")
        for writer in writers:
            writer.result()
    assert storage.list_files(f"{bucket}/a") == [f"{bucket}/a/stays.bin"]


def test_a_reader_sees_one_of_several_writers_whole(bucket: str) -> None:
    uri = f"{bucket}/a.bin"
    contents = [bytes([number]) * 300_000 for number in range(4)]
    with ThreadPoolExecutor(4) as threads:
        writers = [threads.submit(storage.write_bytes_atomic, uri, content) for content in contents * 5]
        writers[0].result()
        for _ in range(10):
            assert storage.read_bytes(uri) in contents
        for writer in writers:
            writer.result()


def test_a_file_is_created_once(bucket: str) -> None:
    uri = storage.join(bucket, "deep", "a.bin")
    assert storage.create_exclusive(uri, b"1")
    assert not storage.create_exclusive(uri, b"2")
    assert storage.create_exclusive(uri, b"1")  # the same bytes are one's own
    assert storage.read_bytes(uri) == b"1"
    with pytest.raises(FileNotFoundError):
        storage.create_exclusive("s3://no-such-bucket/a", b"1")


def test_a_server_keeps_the_condition_by_itself(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = storage.join(bucket, "a.bin")
    assert storage.create_exclusive(uri, b"1")
    monkeypatch.setattr(s3fs.S3FileSystem, "exists", lambda _self, _path: False)  # another one is faster
    assert not storage.create_exclusive(uri, b"2")
    assert storage.read_bytes(uri) == b"1"


def test_a_creation_whose_answer_got_lost_is_known_as_ones_own(faulty: str) -> None:
    uris = [storage.join(faulty, f"{i}.bin") for i in range(40)]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(lambda uri: storage.create_exclusive(uri, uri.encode()), uris)) == [True] * 40
        assert list(threads.map(lambda uri: storage.create_exclusive(uri, b"another"), uris)) == [False] * 40
    assert storage.read_many(uris) == {uri: uri.encode() for uri in uris}


def test_a_file_is_written_bit_by_bit(bucket: str) -> None:
    uri = f"{bucket}/deep/file.bin"
    with storage.writing(uri) as file:
        for number in range(3):
            file.write(bytes([number]) * 4_000_000)  # more than a part of an upload
            assert not storage.exists(uri)
    assert storage.read_bytes(uri) == b"".join(bytes([number]) * 4_000_000 for number in range(3))


@pytest.mark.parametrize("patient", ["for Ray", "within patience", "in a task"])
def test_storage_that_is_away_is_waited_for_where_nobody_tries_again(
    bucket: str, s3_url: str, monkeypatch: pytest.MonkeyPatch, patient: str
) -> None:
    storage.write_bytes_atomic(f"{bucket}/a", b"1")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # who isn't patient fails at once
    s3fs.S3FileSystem.clear_instance_cache()
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(_read_patiently, f"{bucket}/a", patient)
        time.sleep(1)
        assert not found.done()
        command = [sys.executable, str(PROXY), "--port", str(port), "--upstream", s3_url, "--rate", "0"]
        with subprocess.Popen(command) as proxy:
            assert found.result(timeout=120) == b"1"
            proxy.terminate()
    s3fs.S3FileSystem.clear_instance_cache()


def _read_patiently(uri: str, patient: str) -> bytes:
    if patient == "for Ray":
        fs, path = storage.arrow_filesystem(uri)
        with fs.open_input_stream(path) as file:
            return bytes(file.read())
    if patient == "in a task":
        return bytes(tasks._call(storage.read_bytes, uri))
    with storage.patience():
        return storage.read_bytes(uri)


def test_a_first_look_and_other_threads_are_not_patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong address is said at once; and a lease that is renewed too late is lost."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # patience has its own number
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    s3fs.S3FileSystem.clear_instance_cache()
    began = time.monotonic()
    with pytest.raises(EndpointConnectionError):
        storage.exists("s3://bucket/a")
    with storage.patience(), ThreadPoolExecutor(1) as thread, pytest.raises(EndpointConnectionError):
        thread.submit(storage.exists, "s3://bucket/a").result()
    with storage.patience():
        pass
    with pytest.raises(EndpointConnectionError):
        storage.exists("s3://bucket/a")
    assert time.monotonic() - began < 10
    s3fs.S3FileSystem.clear_instance_cache()


def test_beginnings_of_many_files(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "a").write_bytes(b"local")
    storage.write_bytes_atomic(f"{bucket}/b", b"of a store" * 100)
    storage.write_bytes_atomic(f"{bucket}/empty", b"")
    names = [f"{bucket}/b", str(tmp_path / "a"), f"{bucket}/empty", f"{bucket}/absent", f"{tmp_path}/x"]
    found = storage.read_many(names, end=64)
    assert [found[name] for name in names[:3]] == [(b"of a store" * 100)[:64], b"local", b""]
    assert all(isinstance(found[name], FileNotFoundError) for name in names[3:])
