import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data import shards
from raypipe.data.shards import Place, RowReader, ShardError, iter_shards
from raypipe.outputs.sink import write_shard
from raypipe.schema import ROW_DIGEST


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    """One shard, as a stream writes it; its path."""
    entries = write_shard(str(folder), "shards", "all", pa.Table.from_pylist([row | {ROW_DIGEST: "d"} for row in rows]))
    (name,) = entries["shard"].unique().to_pylist()
    return str(folder / name)


def read_row(uri: str, number: int, *, columns: list[str]) -> dict[str, Any]:
    return RowReader().read(Place(uri, number), columns=columns)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve rows of 400 KB that can't be compressed."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"{index:02}", "mask": rng.bytes(400_000), "other": index} for index in range(12)]
    return write(folder, rows)


def test_one_row_by_its_number(shard: str) -> None:
    expected = pq.read_table(shard).to_pylist()[7]
    assert read_row(shard, 7, columns=["mask", "other"]) == {name: expected[name] for name in ("mask", "other")}


def test_only_the_rows_around_it_are_read(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        "fsspec.implementations.local.LocalFileOpener.read",
        lambda self, *args: read.append(args) or self.f.read(*args),
        raising=False,
    )
    groups = pq.ParquetFile(shard).metadata
    assert groups.num_row_groups >= 4
    read_row(shard, 7, columns=["mask"])
    assert 0 < sum(size for (size,) in read) < Path(shard).stat().st_size / 3


@pytest.mark.parametrize("number", [-1, 12])
def test_an_absent_row_names_the_shard(shard: str, number: int) -> None:
    with pytest.raises(ShardError, match=f"has no row {number}: delete it"):
        read_row(shard, number, columns=["mask"])


def test_a_reader_gives_the_same_rows_and_reads_a_footer_once(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, size = RowReader(), 0

    def count(self: Any, *args: int) -> bytes:
        nonlocal size
        data: bytes = self.f.read(*args)
        size += len(data)
        return data

    reader.read(Place(shard, 0), columns=["other"])
    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener.read", count, raising=False)
    for number, row in enumerate(pq.read_table(shard).to_pylist()):
        assert reader.read(Place(shard, number), columns=["other", "mask"]) == {
            name: row[name] for name in ("other", "mask")
        }
    # A group has two rows or three; twelve footers more would be noticed.
    assert size < 3 * Path(shard).stat().st_size
    with pytest.raises(ShardError, match=r"lacks columns \['walk'\]"):
        reader.read(Place(shard, 0), columns=["walk"])


def test_many_rows_at_once_come_with_their_errors(shard: str, tmp_path: Path) -> None:
    good = [Place(shard, number) for number in range(12)]
    absent, lost = Place(shard, 12), Place(str(tmp_path / "no.parquet"), 0)
    found = RowReader().read_many([*good, absent, lost], columns=["other"])
    assert [found[place] for place in good] == [{"other": number} for number in range(12)]
    assert isinstance(found[absent], ShardError)
    assert isinstance(found[lost], FileNotFoundError)
    assert RowReader().read_many([], columns=["other"]) == {}


def test_footers_that_are_kept_are_bounded_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [write(tmp_path, [{"image_id": name, "x": name}]) for name in "abc"]
    size = 3 * pq.read_metadata(uris[0]).serialized_size
    opened: list[str] = []
    contents = shards._read_contents
    monkeypatch.setattr(shards, "_read_contents", lambda uri: opened.append(uri) or contents(uri))
    reader = RowReader(max_bytes=2 * size + size // 2)
    a, b, c = (Place(uri, 0) for uri in uris)
    for place in (a, b, a, c, a, b):  # the third one takes the place of b, which was read from longest ago
        assert reader.read(place, columns=["x"]) == {"x": "abc"[uris.index(place.uri)]}
    assert opened == [a.uri, b.uri, c.uri, b.uri]
    tiny = RowReader(max_bytes=1)
    assert [tiny.read(place, columns=["x"])["x"] for place in (a, b)] == ["a", "b"]


def test_damage_is_found(shard: str, tmp_path: Path) -> None:
    content = bytearray(Path(shard).read_bytes())
    content[len(content) // 20] ^= 1
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    with pytest.raises(ShardError, match="can't be read"):
        read_row(str(broken), 0, columns=["mask"])


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("slow"), OSError(errno.EBUSY, "slow down")])
def test_what_storage_can_t_do_just_now_isn_t_taken_for_damage(
    error: OSError, shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener.read", fail, raising=False)
    with pytest.raises(type(error)) as found:
        read_row(shard, 7, columns=["mask"])
    assert not isinstance(found.value, ShardError)


def test_columns_come_shard_by_shard_with_its_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.data.shards._NUM_THREADS", 2)
    for index in range(5):
        write(tmp_path, [{"image_id": f"{index}{letter}", "mask": b"x"} for letter in "ab"])
    found = list(iter_shards(str(tmp_path / "shards"), columns=["image_id"]))
    assert sorted(row["image_id"][0] for _, table in found for row in table.to_pylist()) == sorted(2 * "01234")
    for uri, table in found:
        for number, row in enumerate(table.to_pylist()):
            assert read_row(uri, number, columns=["image_id"]) == row
