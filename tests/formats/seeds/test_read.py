"""Maps of another program in both forms, and pickles that would run code."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.given_seeds import decode_seed
from raypipe.formats.seeds.read import SAVE_LINE, FoundSeed, UnreadableSource, find_seed_files, read_seeds

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


def row(image_id: str | None, classes: list[str], cam: FloatArray) -> dict[str, Any]:
    values = cam.ravel().tolist()
    return {"image_id": image_id, "classes": classes, "height": cam.shape[1], "width": cam.shape[2], "maps": values}


def found(source: Path) -> dict[str, FoundSeed]:
    return {seed.image_id: seed for uri in find_seed_files(str(source)) for seed in read_seeds(uri)}


def cam_of(seed: FoundSeed) -> FloatArray:
    assert seed.columns is not None, seed.reason
    return decode_seed(seed.columns)


def test_npz_files(tmp_path: Path) -> None:
    first, second = maps(0, 2, 5, 7), maps(1, 1, 6, 8)
    save(tmp_path / "maps", "a", classes=["dog", "cat"], maps=first)
    save(tmp_path / "maps", "b", classes=np.array(["cow"]), maps=second.astype(np.float16), image_id="of/any form")
    save(tmp_path / "maps", "c", classes=[], maps=[])
    save(tmp_path / "maps/of-another-kind", "d", classes=["cat"], maps=second)
    seeds = found(tmp_path / "maps")
    assert {name: (seed.columns or {})["seed_classes"] for name, seed in seeds.items()} == {
        "a": ["dog", "cat"],
        "of/any form": ["cow"],
        "c": [],
    }
    np.testing.assert_allclose(cam_of(seeds["a"]), first, atol=5e-4)
    np.testing.assert_allclose(cam_of(seeds["of/any form"]), second, atol=1e-3)


def test_parquet_files_give_the_same_as_npz(tmp_path: Path) -> None:
    first, second = maps(0, 2, 5, 7), maps(1, 1, 6, 8)
    save(tmp_path / "npz", "a", classes=["dog", "cat"], maps=first)
    save_table(tmp_path / "table/1.parquet", [row("a", ["dog", "cat"], first), row("ü/b", ["cow"], second)])
    seeds = found(tmp_path / "table")
    assert set(seeds) == {"a", "ü/b"}
    assert seeds["a"] == found(tmp_path / "npz")["a"]
    assert found(tmp_path / "table/1.parquet") == seeds


def test_floats_of_any_width_and_nulls_for_nan(tmp_path: Path) -> None:
    values = [0.0, None, 1.0, 0.5]
    for number, kind in enumerate((pa.float16(), pa.float32(), pa.float64())):
        columns = {"image_id": ["a"], "classes": [["cat"]], "height": [2], "width": [2]}
        table = pa.table({**columns, "maps": pa.array([values], pa.list_(pa.float32())).cast(pa.list_(kind))})
        pq.write_table(table, tmp_path / f"{number}.parquet")
        np.testing.assert_array_equal(
            cam_of(found(tmp_path / f"{number}.parquet")["a"]), [[[0, float("nan")], [1, 0.5]]]
        )


def test_the_digest_is_that_of_names_and_maps(tmp_path: Path) -> None:
    digests = []
    for seed, name in ((0, "cat"), (0, "cat"), (1, "cat"), (0, "dog")):
        save(tmp_path, classes=[name], maps=maps(seed, 1, 2, 2))
        digests.append(found(tmp_path)["a"].digest)
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


class Trap:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


def test_pickles_are_refused_and_do_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    save(tmp_path / "maps", classes=["cat"], maps=np.array([Trap(mark)]))
    seed = found(tmp_path / "maps")["a"]
    assert seed.columns is None
    assert "save the maps by np.savez(" in (seed.reason or "")
    assert not mark.exists()
    np.load(tmp_path / "maps/a.npz", allow_pickle=True)["maps"]
    assert mark.exists(), "the trap itself is broken"


def test_a_folder_of_psas_files_says_how_to_convert_them(tmp_path: Path) -> None:
    content: Any = {3: maps(0, 2, 2)}
    np.save(tmp_path / "a.npy", content)
    with pytest.raises(ValueError, match=r"expected \.npz or \.parquet files in .*, got none; pickles .* np\.savez\("):
        find_seed_files(str(tmp_path))


def test_the_line_in_the_error_converts_psas_dictionary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {1: maps(0, 5, 7), 0: maps(1, 5, 7)}
    monkeypatch.chdir(tmp_path)
    names = ("cat", "dog")
    exec(SAVE_LINE, {"np": np, "image_id": "a", "maps": values, "NAMES": names})  # noqa: S102 - our own line
    seed = found(tmp_path)["a"]
    assert (seed.columns or {})["seed_classes"] == ["dog", "cat"]
    np.testing.assert_allclose(cam_of(seed), [values[1], values[0]], atol=5e-4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"classes": ["cat"]}, r"\['maps'\] are missing"),
        ({"classes": [1], "maps": maps(0, 1, 2, 2)}, "expected names as classes"),
        ({"classes": [["cat"]], "maps": maps(0, 1, 2, 2)}, "expected names as classes"),
        ({"classes": ["cat"], "maps": 2 * np.ones((1, 2, 2))}, r"expected values in \[0, 1\]"),
    ],
)
def test_a_file_that_breaks_the_contract_is_left_out_with_a_reason(
    tmp_path: Path, arrays: dict[str, Any], message: str
) -> None:
    save(tmp_path, **arrays)
    save(tmp_path, "good", classes=["cat"], maps=maps(0, 1, 2, 2))
    seeds = found(tmp_path)
    assert seeds["good"].columns is not None
    assert seeds["a"].columns is None
    assert pa.compute.match_substring_regex(pa.scalar(seeds["a"].reason), message).as_py(), seeds["a"].reason


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"no zip at all"])
def test_a_damaged_npz_is_left_out(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    seed = found(tmp_path)["a"]
    assert seed.columns is None
    assert (seed.reason or "").startswith("a.npz: ")


def test_an_npz_with_any_byte_wrong_is_left_out_or_read(tmp_path: Path) -> None:
    """Zip, zlib and NumPy each raise errors of their own."""
    np.savez_compressed(tmp_path / "good.npz", classes=["cat", "dog"], maps=maps(0, 2, 5, 6))
    np.savez(tmp_path / "plain.npz", classes=["cat", "dog"], maps=maps(0, 2, 5, 6))
    left_out = 0
    for name in ("good", "plain"):
        content = (tmp_path / f"{name}.npz").read_bytes()
        for place in range(0, len(content), 3):
            damaged = bytearray(content)
            damaged[place] ^= 0xFF if place % 2 else 0x21
            (tmp_path / "a.npz").write_bytes(damaged)
            (seed,) = read_seeds(str(tmp_path / "a.npz"))
            left_out += seed.columns is None
    assert left_out > 200


def test_an_npz_with_a_password_is_left_out(tmp_path: Path) -> None:
    save(tmp_path, classes=["cat"], maps=maps(0, 1, 2, 2))
    content = bytearray((tmp_path / "a.npz").read_bytes())
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(head)
        while place >= 0:
            content[place + flags] |= 1
            place = content.find(head, place + 1)
    (tmp_path / "a.npz").write_bytes(content)
    assert "encrypted" in (found(tmp_path)["a"].reason or "")


def test_an_npz_that_claims_more_than_memory_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.formats.seeds.read._MOST_BYTES", 1000)
    np.savez_compressed(tmp_path / "a.npz", classes=["cat"], maps=np.zeros((1, 100, 100)))
    assert "it unpacks to" in (found(tmp_path)["a"].reason or "")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 3}, r"has 4 values, expected \(K, height, width\) = \(1, 2, 3\)"),
        ({"maps": None}, "got null"),
        ({"classes": None}, "got null"),
        ({"image_id": None}, "got null or an empty one"),
        ({"maps": [0.0, 1.0, 2.0, 0.0]}, r"got 2 at \(1, 0\) of the map of 'cat'"),
    ],
)
def test_a_row_that_breaks_the_contract_refuses_no_other(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    rows = [row(name, ["cat"], maps(0, 1, 2, 2)) for name in ("a", "good")]
    save_table(tmp_path / "1.parquet", [rows[0] | changes, rows[1]])
    seeds = found(tmp_path)
    assert seeds.pop("good").columns is not None
    (bad,) = seeds.values()
    assert bad.columns is None
    assert pa.compute.match_substring_regex(pa.scalar(bad.reason), message).as_py(), bad.reason


def test_a_table_of_another_kind_says_so(tmp_path: Path) -> None:
    save_table(tmp_path / "1.parquet", [{"image_id": "a", "maps": [1.0]}])
    with pytest.raises(
        UnreadableSource, match=r"1\.parquet can't be read.*\['classes', 'height', 'width'\] are missing"
    ):
        found(tmp_path)
    (tmp_path / "1.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(UnreadableSource, match=r"1\.parquet can't be read"):
        found(tmp_path)
