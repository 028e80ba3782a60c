from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.data.shards import ShardError
from raypipe.schema import SEEDS
from raypipe.stages.load_shards import LoadCams


@pytest.fixture
def shard_uri(tmp_path: Path) -> str:
    rows = [{"image_id": name, "cam": name.encode(), "cam_height": 1, "cam_width": 2} for name in ("a", "b")]
    pq.write_table(pa.Table.from_pylist(rows, schema=SEEDS), tmp_path / "s.parquet")
    return str(tmp_path / "s.parquet")


def test_finds_the_row(shard_uri: str) -> None:
    out = LoadCams().process({"image_id": "b", "shard_uri": shard_uri})
    assert out == {"cam": b"b", "cam_height": 1, "cam_width": 2}


def test_reads_a_shard_once_for_consecutive_rows(shard_uri: str) -> None:
    stage = LoadCams()
    stage.process({"image_id": "a", "shard_uri": shard_uri})
    Path(shard_uri).unlink()
    assert stage.process({"image_id": "b", "shard_uri": shard_uri})["cam"] == b"b"


def test_absent_row_is_an_error(shard_uri: str) -> None:
    with pytest.raises(ValueError, match="has no row 'c'"):
        LoadCams().process({"image_id": "c", "shard_uri": shard_uri})


def test_shard_without_a_column_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a"], "cam": [b"a"]}), tmp_path / "s.parquet")
    with pytest.raises(ShardError, match=r"s\.parquet lacks columns \['cam_height', 'cam_width'\].*delete it"):
        LoadCams().process({"image_id": "a", "shard_uri": str(tmp_path / "s.parquet")})


@pytest.mark.parametrize("place", ["page", "foot", "cut", "empty"])
def test_damaged_shard_is_an_error_that_names_it(tmp_path: Path, place: str) -> None:
    """A changed byte inside a map too: it would be a wrong mask."""
    path = tmp_path / "s.parquet"
    rows = [{"image_id": "a", "cam": b"noise", "cam_height": 1, "cam_width": 2}]
    pq.write_table(pa.Table.from_pylist(rows, schema=SEEDS), path, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    if place == "page":
        data[data.index(b"noise")] ^= 1
    elif place == "foot":
        data[-6] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(place, data))
    with pytest.raises(ShardError, match=r"s\.parquet can't be read .*: if it is damaged, delete it and the summary"):
        LoadCams().process({"image_id": "a", "shard_uri": str(path)})
