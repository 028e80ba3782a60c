from pathlib import Path

import pytest
from container_files import picture, write_tar

from raypipe import storage
from raypipe.formats.containers import find_containers
from raypipe.formats.webdataset.read import WebDatasetReader
from raypipe.pipelines.imports import containers as import_containers
from raypipe.pipelines.imports.containers import read_containers


def write(folder: Path, number: int) -> None:
    for index in range(number):
        write_tar(folder / f"{index:03d}.tar", {f"{n}.jpg": picture(index) for n in "ab"} | {"a.cls": b"cat"})


def test_tasks_find_the_same_as_threads(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 6)
    containers = find_containers(str(tmp_path), suffix=".tar")
    expected = read_containers(WebDatasetReader(), containers, source=str(tmp_path))
    assert expected.table["image_id"].to_pylist()[:3] == ["000/a", "000/b", "001/a"]
    assert storage.read_bytes(expected.table["image_uri"][10].as_py()) == picture(5)
    monkeypatch.setattr(import_containers, "FEW", 2)
    found = read_containers(WebDatasetReader(), containers, source=str(tmp_path))
    assert found.table.equals(expected.table)


def test_a_tasks_error_is_the_readers(local_ray: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_containers, "FEW", 2)
    write(tmp_path, 4)
    (tmp_path / "002.tar").write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match=r"^(file://)?/.*002\.tar is no tar, or it is compressed"):
        read_containers(WebDatasetReader(), find_containers(str(tmp_path), suffix=".tar"), source=str(tmp_path))
