"""psa's and irn's maps, saved as those codes save them; and pickles that would run code."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.formats.cams import read as cam_folder
from raypipe.formats.cams.plain_arrays import read_maps
from raypipe.formats.cams.read import import_cams, read_cams_digest


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(exist_ok=True)
    np.save(path, content)
    return path


def maps(seed: int, *shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).random(shape, np.float32)


def test_psa_and_irn(tmp_path: Path) -> None:
    psa = {14: maps(0, 5, 7), 3: maps(1, 5, 7)}
    high = maps(2, 2, 6, 8)
    irn = {"keys": torch.tensor([0, 19]), "cam": torch.from_numpy(maps(3, 2, 2, 2)), "high_res": high}
    save(tmp_path / "cams/a.npy", psa)
    save(tmp_path / "cams/b.npy", irn)
    save(tmp_path / "cams/c.npy", {})
    words = ["import", "cams", str(tmp_path / "cams"), str(tmp_path / "out")]
    assert "3 files" in CliRunner().invoke(app, words, catch_exceptions=False).stdout
    found = {path.stem: np.load(path, allow_pickle=False) for path in (tmp_path / "out").glob("*.npz")}
    assert found["a"]["class_ids"].tolist() == [4, 15]
    np.testing.assert_array_equal(found["a"]["cam"], [psa[3], psa[14]])
    assert found["b"]["class_ids"].tolist() == [1, 20]
    np.testing.assert_array_equal(found["b"]["cam"], high)
    assert found["c"]["class_ids"].size == 0


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_code_is_refused_and_does_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    save(tmp_path / "cams/a.npy", {0: maps(0, 2, 2), "trap": Trap(mark)})
    with pytest.raises(ValueError, match=r"a\.npy can't be read as maps: .*could run code"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
    assert not mark.exists()
    np.load(tmp_path / "cams/a.npy", allow_pickle=True)
    assert mark.exists(), "the trap itself is broken"


@pytest.mark.parametrize("name", ["eval", "exec", "getattr", "__import__"])
def test_no_builtin_is_found(name: str, tmp_path: Path) -> None:
    head = save(tmp_path / "cams/a.npy", {}).read_bytes()
    start = head.index(b"\n") + 1
    with pytest.raises(ValueError, match=f"builtins.{name}"):
        read_maps(head[:start] + f"cbuiltins\n{name}\n.".encode())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (maps(0, 2, 2), "an array of float32"),
        ([1, 2], "array of int64"),
        ({0: maps(0, 2, 2), 1: maps(0, 2, 3)}, "inhomogeneous"),
        ({"a": maps(0, 2, 2)}, "its classes are <U1"),
        ({0: maps(0, 2)}, "its maps float32"),
        ({254: maps(0, 2, 2)}, r"\[254\] not in 0..253"),
        ({0: np.full((2, 2), np.nan, np.float32)}, "aren't finite"),
        ({"keys": np.array([1]), "high_res": maps(0, 2, 3, 3)}, "2 maps of the classes"),
        ({"keys": np.array([1])}, "its maps object"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    path = save(tmp_path / "cams/a.npy", content)
    with pytest.raises(ValueError, match=message):
        read_maps(path.read_bytes())


def test_a_reader_that_dies_is_an_error_that_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "cams/a.npy", {0: maps(0, 2, 2)})
    monkeypatch.setattr(cam_folder.sys, "executable", "/bin/false")
    with pytest.raises(ValueError, match=r"a\.npy can't be read as maps: its reader crashed"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))


def test_a_folder_without_files(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no \.npy files"):
        import_cams(str(tmp_path), str(tmp_path / "out"))


def test_damaged_pickles_give_maps_or_an_error(tmp_path: Path) -> None:
    path = save(tmp_path / "cams/a.npy", {0: maps(0, 3, 3)})
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    with cam_folder._reader() as process:
        for _ in range(100):
            damaged = bytearray(data)
            damaged[int(rng.integers(len(data)))] = int(rng.integers(256))
            path.write_bytes(damaged)
            try:
                content = cam_folder._convert(process, str(path))
            except ValueError:
                continue
            assert content.startswith(b"PK")


def test_the_digest_is_that_of_all_maps(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        save(tmp_path / "cams/a.npy", {0: maps(seed, 2, 2)})
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
        digests.append(read_cams_digest(str(tmp_path / "out")))
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(ValueError, match=r"has no cams\.json: `raypipe import cams FOLDER"):
        read_cams_digest(str(tmp_path / "cams"))
