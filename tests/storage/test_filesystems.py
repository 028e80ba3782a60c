import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from raypipe import storage
from raypipe.uri import name_of, relative

MEMBERS = ("sub/a b.png", "shot #7.png", "100%.png")


def zip_of(names: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, name)
    return buffer.getvalue()


def tar_of(names: tuple[str, ...]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return buffer.getvalue()


@pytest.fixture(params=["local", "memory", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, bucket: str) -> str:
    return {"local": str(tmp_path), "memory": f"memory://{tmp_path}", "s3": bucket}[request.param]


@pytest.mark.parametrize(("scheme", "content"), [("zip", zip_of(MEMBERS)), ("tar", tar_of(MEMBERS))])
def test_archives_are_folders(folder: str, scheme: str, content: bytes) -> None:
    archive = f"{folder}/x #1.{scheme}"
    storage.write_bytes_atomic(archive, content)
    for root in (f"{scheme}://::{archive}", f"{scheme}::{archive}", f"{scheme}://::simplecache::{archive}"):
        found = storage.list_files(root)
        assert sorted(str(relative(uri, storage.absolute(root))) for uri in found) == sorted(MEMBERS)
        assert sorted(bytes(each).decode() for each in storage.read_many(found).values()) == sorted(MEMBERS)
    assert storage.read_bytes(f"{scheme}://sub/a b.png::{archive}") == b"sub/a b.png"
    assert storage.exists(f"{scheme}://sub::{archive}")
    assert not storage.exists(f"{scheme}://absent.png::{archive}")


def test_caches_show_what_they_keep(folder: str) -> None:
    storage.write_bytes_atomic(f"{folder}/a::b.png", b"1")
    assert storage.read_bytes(f"simplecache::{folder}/a::b.png") == b"1"
    assert [name_of(uri) for uri in storage.list_files(f"simplecache::{folder}")] == ["a::b.png"]


def test_what_an_archive_lacks_is_that_uris_fault(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(zip_of(MEMBERS))
    (tmp_path / "b.zip").write_bytes(b"no archive")
    good, *bad = (
        *(f"zip://100%.png::{tmp_path}/a.zip", f"zip://absent.png::{tmp_path}/a.zip"),
        *(f"zip://a.png::{tmp_path}/absent.zip", f"zip://a.png::{tmp_path}", f"zip://a.png::{tmp_path}/b.zip"),
    )
    found = storage.read_many([good, *bad])
    assert found[good] == b"100%.png"
    errors = [type(found[uri]) for uri in bad]
    assert errors == [FileNotFoundError, FileNotFoundError, IsADirectoryError, ValueError]
    assert "is no zip archive" in str(found[bad[3]])


@pytest.mark.parametrize("uri", ["nosuch://a/b", "gs://bucket/a", "github://a", "sftp://host/a"])
def test_a_scheme_that_nothing_opens_is_named(uri: str) -> None:
    with pytest.raises(ValueError, match=f"^{uri.partition('/')[0]}// can't be opened .* expected a path, s3://"):
        storage.filesystem(uri)


def test_the_folders_of_a_folder(folder: str) -> None:
    """Names that begin alike, files beside, and what lies deeper are no folders of it."""
    assert storage.list_folders(f"{folder}/absent") == []
    for name in ("b/deep/file", "a #[1]/file", "file", "ab/file"):
        storage.write_bytes_atomic(f"{folder}/in/{name}", b"x")
    names = [storage.absolute(f"{folder}/in/{name}") for name in ("a #[1]", "ab", "b")]
    assert storage.list_folders(f"{folder}/in") == sorted(names)
    assert storage.read_bytes(storage.join(storage.list_folders(f"{folder}/in")[0], "file")) == b"x"
