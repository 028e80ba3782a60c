from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.schema import SEEDS
from raypipe.stages.load import LoadCams


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
