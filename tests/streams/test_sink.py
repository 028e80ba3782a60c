import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.streams.sink import ShardSink, drop_doubled, png_name

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field("mask", pa.binary())])


def make_block(**rows: str | None) -> pa.Table:
    """Rows by id; a value is the reason of an error."""
    return pa.table(
        {
            "image_id": list(rows),
            "mask": [None if reason else name.encode() for name, reason in rows.items()],
            "error_stage": pa.array(["DecodeImages" if reason else None for reason in rows.values()], pa.string()),
            "error_reason": pa.array(list(rows.values()), pa.string()),
        }
    )


def write(folder: Path, *blocks: pa.Table, **options: Any) -> None:
    ShardSink(str(folder), SCHEMA, rows_per_shard=4, **options).write(blocks, None)


def test_finished_and_quarantined_rows_go_to_their_own_shards(tmp_path: Path) -> None:
    write(tmp_path, make_block(b=None, a=None), make_block(c="broken"))
    (shard,) = (tmp_path / "shards").iterdir()
    (quarantine,) = (tmp_path / "quarantine").iterdir()
    assert pq.read_table(shard).to_pylist() == [{"image_id": "a", "mask": b"a"}, {"image_id": "b", "mask": b"b"}]
    assert pq.read_table(quarantine).to_pylist() == [{"image_id": "c", "stage": "DecodeImages", "reason": "broken"}]


def test_a_task_that_runs_again_overwrites_its_own_shard(tmp_path: Path) -> None:
    write(tmp_path, make_block(a=None, b=None))
    (first,) = (tmp_path / "shards").iterdir()
    content = first.read_bytes()
    write(tmp_path, make_block(b=None), make_block(a=None))
    (second,) = (tmp_path / "shards").iterdir()
    assert (second.name, second.read_bytes()) == (first.name, content)


def test_shards_of_different_ids_have_different_names(tmp_path: Path) -> None:
    write(tmp_path, make_block(a=None, b=None))
    write(tmp_path, make_block(**{"a\0b": None}))
    write(tmp_path, make_block(**{'a", "b': None}))
    assert len(list((tmp_path / "shards").iterdir())) == 3


def test_png_files_on_request(tmp_path: Path) -> None:
    write(tmp_path, make_block(a=None, c="broken"), png_column="mask")
    assert [path.name for path in (tmp_path / "png").iterdir()] == ["a.png"]


def test_empty_blocks_write_nothing(tmp_path: Path) -> None:
    write(tmp_path, make_block().cast(make_block(a=None).schema))
    assert list(tmp_path.iterdir()) == []


def test_doubled_rows_are_left_in_one_shard(tmp_path: Path) -> None:
    write(tmp_path, make_block(a=None, b=None))
    write(tmp_path, make_block(b=None, c=None, d="broken"))
    write(tmp_path, make_block(c="denied", e="broken"))
    drop_doubled(str(tmp_path))
    found = {
        kind: sorted(
            name for path in (tmp_path / kind).iterdir() for name in pq.read_table(path)["image_id"].to_pylist()
        )
        for kind in ("shards", "quarantine")
    }
    assert found == {"shards": ["a", "b", "c"], "quarantine": ["d", "e"]}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    drop_doubled(str(tmp_path))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "ü ñ", "x" * 300, ".", "..", "a\\b", "\ud800"])
def test_ids_never_leave_the_folder(image_id: str) -> None:
    name = png_name(image_id)
    assert re.fullmatch(r"[A-Za-z0-9_~-]+\.png", name) or re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.png", name)
    assert len(name) < 120


def test_plain_ids_keep_their_name_and_odd_ones_stay_different() -> None:
    assert png_name("2007_000032") == "2007_000032.png"
    assert len({png_name(image_id) for image_id in ("a/b", "a-b", "a b", "a.b")}) == 4
