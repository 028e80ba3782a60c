"""Whether images with the same ids are the same ones."""

from pathlib import Path

import pytest

from raypipe import storage
from raypipe.pipelines.same_images import KnownImage, know_images, other_images


def test_an_image_is_known_by_its_uri_and_the_beginning_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"x" * 2**18 + b"y")
    known = know_images({"a": str(path), "absent": f"{tmp_path}/b.jpg", "null": None})
    assert known == {
        "a": KnownImage(str(path), storage.bytes_digest(b"x" * 2**18)),
        "absent": KnownImage(f"{tmp_path}/b.jpg", None),
        "null": KnownImage(None, None),
    }


def test_other_images_are_those_of_another_uri_and_content(tmp_path: Path) -> None:
    for name, content in (("a", "one"), ("copy", "one"), ("b", "two")):
        (tmp_path / name).write_text(content)
    known = know_images(dict.fromkeys(("same", "moved", "other", "gone", "null", "left"), f"{tmp_path}/a"))
    now = {"same": "a", "moved": "copy", "other": "b", "gone": "absent", "new": "b"}
    others = other_images(known, {name: f"{tmp_path}/{file}" for name, file in now.items()} | {"null": None})
    assert list(others) == ["other", "gone", "null"]
    assert others["gone"].content is None


def test_files_of_unchanged_uris_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def read_many(uris: list[str], *, end: int) -> dict[str, bytes]:
        read.extend(uris)
        return dict.fromkeys(uris, b"")

    monkeypatch.setattr(storage, "read_many", read_many)
    known = {name: KnownImage(f"s3://old/{name}", storage.bytes_digest(b"")) for name in "ab"}
    assert other_images(known, {"a": "s3://old/a", "b": "s3://new/b"}) == {}
    assert read == ["s3://new/b"]
