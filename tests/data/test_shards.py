from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import ShardError, find_shard, read_row, stream_columns
from raypipe.pipelines.sink import write_shard


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Twelve rows of 400 KB that can't be compressed."""
    folder = tmp_path_factory.mktemp("shards")
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"{index:02}", "mask": rng.bytes(400_000), "other": index} for index in range(12)]
    name = write_shard(str(folder), "shards", pa.Table.from_pylist(rows))
    return str(folder / "shards" / f"{name}.parquet")


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
    with pytest.raises(ShardError, match=r"has 0 rows 'x'.*delete it"):
        read_row(shard, "x", columns=["mask"])


def test_damage_is_found(shard: str, tmp_path: Path) -> None:
    content = bytearray(Path(shard).read_bytes())
    content[len(content) // 20] ^= 1
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(content)
    with pytest.raises(ShardError, match="can't be read"):
        read_row(str(broken), "00", columns=["mask"])


def test_small_columns_of_many_shards_in_few_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raypipe.data.shards._SHARDS_AT_ONCE", 2)
    for index in range(5):
        write_shard(str(tmp_path), "shards", pa.table({"image_id": [f"{index}a", f"{index}b"], "mask": [b"x", b"y"]}))
    tables = list(stream_columns(str(tmp_path / "shards"), columns=["image_id"]))
    assert [table.num_rows for table in tables] == [4, 4, 2]
    for table in tables:
        for row in table.to_pylist():
            assert read_row(row["shard_uri"], row["image_id"], columns=["image_id"]) == {"image_id": row["image_id"]}


def test_the_shard_of_an_image_is_found_by_its_id(shard: str) -> None:
    folder = str(Path(shard).parent)
    assert find_shard(folder, "07") == f"file://{shard}"
    assert find_shard(folder, "7") is None
    assert find_shard(f"{folder}/absent", "07") is None
