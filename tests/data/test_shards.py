from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import RowReader, ShardError, iter_shards
from raypipe.schema import ROW_DIGEST
from raypipe.streams.sink import write_shard


def write(folder: Path, rows: list[dict[str, Any]]) -> str:
    """One shard, as a stream writes it; its path."""
    entries = write_shard(str(folder), "shards", "all", pa.Table.from_pylist([row | {ROW_DIGEST: "d"} for row in rows]))
    (name,) = entries["shard"].unique().to_pylist()
    return str(folder / name)


def read_row(uri: str, image_id: str, *, columns: list[str]) -> dict[str, Any]:
    return RowReader().read(uri, image_id, columns=columns)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve rows of 400 KB that can't be compressed."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"{index:02}", "mask": rng.bytes(400_000), "other": index} for index in range(12)]
    return write(folder, rows)


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

    reader.read(shard, "00", columns=["other"])
    monkeypatch.setattr("fsspec.implementations.local.LocalFileOpener.read", count, raising=False)
    for row in pq.read_table(shard).to_pylist():
        assert reader.read(shard, row["image_id"], columns=["other", "mask"]) == {
            name: row[name] for name in ("other", "mask")
        }
    # A group has two rows or three; twelve footers more would be noticed.
    assert size < 3 * Path(shard).stat().st_size
    with pytest.raises(ShardError, match=r"lacks columns \['walk'\]"):
        reader.read(shard, "00", columns=["walk"])


def test_damage_is_found(shard: str, tmp_path: Path) -> None:
    content = bytearray(Path(shard).read_bytes())
    content[len(content) // 20] ^= 1
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    with pytest.raises(ShardError, match="can't be read"):
        read_row(str(broken), "00", columns=["mask"])


def test_columns_come_shard_by_shard_with_its_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.data.shards._NUM_THREADS", 2)
    for index in range(5):
        write(tmp_path, [{"image_id": f"{index}{letter}", "mask": b"x"} for letter in "ab"])
    found = list(iter_shards(str(tmp_path / "shards"), columns=["image_id"]))
    assert sorted(row["image_id"][0] for _, table in found for row in table.to_pylist()) == sorted(2 * "01234")
    for uri, table in found:
        for row in table.to_pylist():
            assert read_row(uri, row["image_id"], columns=["image_id"]) == row
