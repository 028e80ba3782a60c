import errno
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data import shards
from raypipe.data.shards import Place, RowReader, ShardError, iter_shards, locate_rows, read_row
from raypipe.streams.sink import write_shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve rows of 400 KB that can't be compressed."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"{index:02}", "mask": rng.bytes(400_000), "other": index} for index in range(12)]
    uri = write_shard(str(folder), "shards", pa.Table.from_pylist(rows))
    assert uri is not None
    return uri


def test_one_row_by_its_id(shard: str) -> None:
    expected = pq.read_table(shard).to_pylist()[7]
    assert read_row(shard, "07", columns=["mask", "other"]) == {name: expected[name] for name in ("mask", "other")}


def test_only_the_rows_around_it_are_read(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    monkeypatch.setattr(
        "fsspec.implementations.local.LocalFileOpener.read",
        lambda self, *args: read.append(args) or self.f.read(*args),
        raising=False,
    )
    groups = pq.ParquetFile(shard).metadata
    assert groups.num_row_groups >= 4
    read_row(shard, "07", columns=["mask"])
    assert 0 < sum(size for (size,) in read) < Path(shard).stat().st_size / 3


def test_an_absent_row_names_shard_and_image(shard: str) -> None:
    with pytest.raises(ShardError, match=r"has no row 'x'.*delete it"):
        read_row(shard, "x", columns=["mask"])


def test_a_reader_gives_the_same_rows_and_reads_a_footer_once(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, size = RowReader(), 0

    def count(self: Any, *args: int) -> bytes:
        nonlocal size
        data: bytes = self.f.read(*args)
        size += len(data)
        return data

    reader.read(Place(shard, "00"), columns=["other"])
    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener.read", count, raising=False)
    for row in pq.read_table(shard).to_pylist():
        assert reader.read(Place(shard, row["image_id"]), columns=["other", "mask"]) == {
            name: row[name] for name in ("other", "mask")
        }
    # A group has two rows or three; twelve footers more would be noticed.
    assert size < 3 * Path(shard).stat().st_size
    with pytest.raises(ShardError, match=r"lacks columns \['walk'\]"):
        reader.read(Place(shard, "00"), columns=["walk"])


def test_a_row_s_number_spares_its_id(shard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    read_row_group, read = pq.ParquetFile.read_row_group, pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile,
        "read_row_group",
        lambda file, group, columns: asked.append(columns) or read_row_group(file, group, columns=columns),
    )
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda file, columns: asked.append(columns) or read(file, columns=columns)
    )
    reader = RowReader()
    for number in (0, 1, 5, 11):
        assert reader.read(Place(shard, "any", number), columns=["other"]) == {"other": number}
    assert asked == [["other"]] * 4
    assert reader.read(Place(shard, "05"), columns=["other"]) == {"other": 5}
    assert asked[4:] == [["image_id"], ["other"]]
    with pytest.raises(ShardError, match="has no row 'any'"):
        reader.read(Place(shard, "any", 12), columns=["other"])


def test_many_rows_at_once_come_with_their_errors(shard: str, tmp_path: Path) -> None:
    good = [Place(shard, f"{number:02}") for number in range(12)]
    absent, lost = Place(shard, "x"), Place(str(tmp_path / "no.parquet"), "00")
    found = RowReader().read_many([*good, absent, lost], columns=["other"])
    assert [found[place] for place in good] == [{"other": number} for number in range(12)]
    assert isinstance(found[absent], ShardError)
    assert isinstance(found[lost], FileNotFoundError)
    assert RowReader().read_many([], columns=["other"]) == {}


def test_footers_that_are_kept_are_bounded_by_their_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uris = [write_shard(str(tmp_path), "shards", pa.table({"image_id": [f"{index}"], "x": [index]})) for index in "abc"]
    size = 3 * pq.read_metadata(uris[0]).serialized_size
    opened: list[str] = []
    contents = shards._read_contents
    monkeypatch.setattr(shards, "_read_contents", lambda uri: opened.append(uri) or contents(uri))
    reader = RowReader(max_bytes=2 * size + size // 2)
    a, b, c = (Place(str(uri), name) for uri, name in zip(uris, "abc", strict=True))
    for place in (a, b, a, c, a, b):  # the third one takes the place of b, which was read from longest ago
        assert reader.read(place, columns=["x"]) == {"x": place.image_id}
    assert opened == [a.uri, b.uri, c.uri, b.uri]
    tiny = RowReader(max_bytes=1)
    assert [tiny.read(place, columns=["x"])["x"] for place in (a, b)] == ["a", "b"]


def test_damage_is_found(shard: str, tmp_path: Path) -> None:
    content = bytearray(Path(shard).read_bytes())
    content[len(content) // 20] ^= 1
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    with pytest.raises(ShardError, match="can't be read"):
        read_row(str(broken), "00", columns=["mask"])


@pytest.mark.parametrize("error", [ConnectionError("reset"), TimeoutError("slow"), OSError(errno.EBUSY, "slow down")])
def test_what_storage_can_t_do_just_now_isn_t_taken_for_damage(
    error: OSError, shard: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> bytes:
        raise error

    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener.read", fail, raising=False)
    with pytest.raises(type(error)) as found:
        read_row(shard, "07", columns=["mask"])
    assert not isinstance(found.value, ShardError)


def test_columns_come_shard_by_shard_with_its_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.data.shards._NUM_THREADS", 2)
    for index in range(5):
        write_shard(str(tmp_path), "shards", pa.table({"image_id": [f"{index}a", f"{index}b"], "mask": [b"x", b"y"]}))
    found = list(iter_shards(str(tmp_path / "shards"), columns=["image_id"]))
    assert sorted(row["image_id"][0] for _, table in found for row in table.to_pylist()) == sorted(2 * "01234")
    for uri, table in found:
        for row in table.to_pylist():
            assert read_row(uri, row["image_id"], columns=["image_id"]) == row


def test_the_shard_of_an_image_is_found_by_its_id(shard: str) -> None:
    folder = str(Path(shard).parent)
    assert locate_rows(folder, ["07", "7"]) == {"07": f"file://{shard}"}
    assert locate_rows(f"{folder}/absent", ["07"]) == {}


def test_many_rows_at_once_come_from_a_bucket(bucket: str) -> None:
    rows = [{"image_id": f"{index}", "mask": bytes([index]) * 50_000} for index in range(40)]
    uris = [write_shard(bucket, "shards", pa.Table.from_pylist(rows[start : start + 10])) for start in (0, 10, 20, 30)]
    places = [Place(str(uris[index // 10]), f"{index}") for index in range(40)]
    found = RowReader().read_many(places, columns=["mask"])
    assert [found[place] for place in places] == [{"mask": row["mask"]} for row in rows]
