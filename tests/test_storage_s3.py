"""Storage on a real S3 server over the network, and behind a proxy that spoils requests."""

import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import s3fs

from raypipe import storage
from raypipe.data.manifest import Manifest
from raypipe.data.parts import read_manifest, write_manifest

PROXY = Path(__file__).parent / "servers" / "faulty_proxy.py"


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


def test_a_file_is_written_bit_by_bit(bucket: str) -> None:
    uri = f"{bucket}/deep/file.bin"
    with storage.writing(uri) as file:
        for number in range(3):
            file.write(bytes([number]) * 4_000_000)  # more than a part of an upload
            assert not storage.exists(uri)
    assert storage.read_bytes(uri) == b"".join(bytes([number]) * 4_000_000 for number in range(3))
