"""Maps of another program in both forms, and pickles that would run code."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from raypipe.cli import app
from raypipe.data.names import file_stem
from raypipe.formats.cams.read import import_cams, read_cams_digest

FloatArray = np.ndarray[Any, np.dtype[np.float32]]


def maps(seed: int, *shape: int) -> FloatArray:
    return np.random.default_rng(seed).random(shape, np.float32)


def save(folder: Path, name: str = "a", **arrays: Any) -> Path:
    folder.mkdir(exist_ok=True)
    np.savez(folder / f"{name}.npz", **arrays)
    return folder


def save_table(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def row(image_id: str, class_ids: list[int], cam: FloatArray) -> dict[str, Any]:
    return {
        "image_id": image_id,
        "class_ids": class_ids,
        "height": cam.shape[1],
        "width": cam.shape[2],
        "cam": cam.ravel().tolist(),
    }


def imported(folder: Path, out: Path) -> dict[str, tuple[list[int], FloatArray]]:
    import_cams(str(folder), str(out))
    files = {path.stem: np.load(path, allow_pickle=False) for path in out.glob("*.npz")}
    return {name: (file["class_ids"].tolist(), file["cam"]) for name, file in files.items()}


def test_npz_files(tmp_path: Path) -> None:
    first, second = maps(0, 2, 5, 7), maps(1, 1, 6, 8)
    save(tmp_path / "cams", "a", class_ids=[15, 4], cam=first)
    save(tmp_path / "cams", "b", class_ids=np.array([20], np.uint8), cam=second.astype(np.float16))
    save(tmp_path / "cams", "c", class_ids=[], cam=[])
    save(tmp_path / "cams/of-another-kind", "d", class_ids=[1], cam=second)
    words = ["import", "cams", str(tmp_path / "cams"), str(tmp_path / "out")]
    assert "maps of 3 images" in CliRunner().invoke(app, words, catch_exceptions=False).stdout
    found = imported(tmp_path / "cams", tmp_path / "out")
    assert {name: ids for name, (ids, _) in found.items()} == {"a": [4, 15], "b": [20], "c": []}
    np.testing.assert_array_equal(found["a"][1], first[::-1])
    np.testing.assert_allclose(found["b"][1], second, atol=1e-3)
    assert found["b"][1].dtype == np.float32


def test_parquet_files_give_the_same_as_npz(tmp_path: Path) -> None:
    first, second = maps(0, 2, 5, 7), maps(1, 1, 6, 8)
    save(tmp_path / "npz", "a", class_ids=[15, 4], cam=first)
    save_table(tmp_path / "table/1.parquet", [row("a", [15, 4], first), row("ü/b", [20], second)])
    found = imported(tmp_path / "table", tmp_path / "out")
    assert set(found) == {"a", file_stem("ü/b")}
    np.testing.assert_array_equal(found[file_stem("ü/b")][1], second)
    expected = imported(tmp_path / "npz", tmp_path / "expected")["a"]
    assert found["a"][0] == expected[0]
    np.testing.assert_array_equal(found["a"][1], expected[1])


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickles_are_refused_and_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    save(tmp_path / "cams", class_ids=[1], cam=np.array([Trap(mark)]))
    with pytest.raises(ValueError, match=r"a\.npz can't be read as maps: .*save the maps by np\.savez\("):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
    assert not mark.exists()
    np.load(tmp_path / "cams/a.npz", allow_pickle=True)["cam"]
    assert mark.exists(), "the trap itself is broken"


def test_a_folder_of_psas_files_says_how_to_convert_them(tmp_path: Path) -> None:
    content: Any = {3: maps(0, 2, 2)}
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=r"expected \.npz or \.parquet files in .*, got none; pickles .* np\.savez\("):
        import_cams(str(tmp_path), str(tmp_path / "out"))


def test_the_line_in_the_error_converts_psas_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raypipe.formats.cams.read import SAVE_LINE

    values = {14: maps(0, 5, 7), 3: maps(1, 5, 7)}
    (tmp_path / "cams").mkdir()
    monkeypatch.chdir(tmp_path / "cams")
    exec(SAVE_LINE, {"np": np, "image_id": "a", "maps": values})  # noqa: S102 - our own line
    class_ids, cam = imported(tmp_path / "cams", tmp_path / "out")["a"]
    assert class_ids == [4, 15]
    np.testing.assert_array_equal(cam, [values[3], values[14]])


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"class_ids": [1]}, "cam is not a file in the archive"),
        ({"class_ids": ["a"], "cam": maps(0, 1, 2, 2)}, "got <U1"),
        ({"class_ids": [1], "cam": maps(0, 2, 2)}, r"float32 \(2, 2\)"),
        ({"class_ids": [1], "cam": np.ones((1, 2, 2), int)}, r"int64 \(1, 2, 2\)"),
        ({"class_ids": [1], "cam": maps(0, 2, 3, 3)}, r"got 2 maps for the class ids \[1\]"),
        ({"class_ids": [2, 2], "cam": maps(0, 2, 3, 3)}, r"got 2 maps for the class ids \[2, 2\]"),
        ({"class_ids": [0], "cam": maps(0, 1, 2, 2)}, r"expected class ids in 1\.\.254, got \[0\]"),
        ({"class_ids": [255], "cam": maps(0, 1, 2, 2)}, r"got \[255\]"),
        ({"class_ids": [1], "cam": np.full((1, 2, 2), np.nan)}, "got infinity or NaN"),
    ],
)
def test_other_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    save(tmp_path / "cams", **arrays)
    with pytest.raises(ValueError, match=rf"a\.npz can't be read as maps: .*{message}"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"image_id": "a", "cam": [1.0]}], r"\['class_ids', 'height', 'width'\] are missing"),
        (
            [row("a", [1], maps(0, 1, 2, 2)) | {"width": 3}],
            r"has 4 values, expected \(K, height, width\) = \(1, 2, 3\)",
        ),
        ([row("a", [1], maps(0, 1, 2, 2)), row("b", [1], maps(0, 1, 2, 2)) | {"cam": None}], "null in the row of 'b'"),
        ([row("a", [1], maps(0, 1, 2, 2))] * 2, "two rows for 'a'"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    save_table(tmp_path / "cams/1.parquet", rows)
    with pytest.raises(ValueError, match=rf"1\.parquet can't be read as maps: .*{message}"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))


def test_an_image_in_two_files_is_refused(tmp_path: Path) -> None:
    save_table(tmp_path / "cams/1.parquet", [row("a", [1], maps(0, 1, 2, 2))])
    save(tmp_path / "cams", class_ids=[1], cam=maps(0, 1, 2, 2))
    with pytest.raises(ValueError, match=r"several maps of the image whose file is a\.npz"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))


def test_a_failed_import_leaves_no_index(tmp_path: Path) -> None:
    save(tmp_path / "cams", class_ids=[1], cam=maps(0, 1, 2, 2))
    import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
    (tmp_path / "cams/b.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"b\.npz can't be read as maps"):
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
    with pytest.raises(ValueError, match=r"has no cams\.json: `raypipe import cams FOLDER"):
        read_cams_digest(str(tmp_path / "out"))


def test_the_digest_is_that_of_all_maps(tmp_path: Path) -> None:
    digests = []
    for seed in (0, 0, 1):
        save(tmp_path / "cams", class_ids=[1], cam=maps(seed, 1, 2, 2))
        import_cams(str(tmp_path / "cams"), str(tmp_path / "out"))
        digests.append(read_cams_digest(str(tmp_path / "out")))
    assert digests[0] == digests[1] != digests[2]
