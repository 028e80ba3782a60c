import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.schema import ROW_DIGEST
from raypipe.streams.sink import ShardWriter, drop_rows, png_name, write_shard

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("mask", pa.binary()),
        pa.field(ROW_DIGEST, pa.string()),
    ],
    metadata={"made by": "a test"},
)


def make_rows(*, digest: str = "1", **rows: str | None) -> pa.Table:
    """Rows by id; a value is the reason of an error."""
    return pa.table(
        {
            "image_id": list(rows),
            "mask": pa.array([None if reason else name.encode() for name, reason in rows.items()], pa.binary()),
            "image": pa.array([b"no output"] * len(rows), pa.binary()),
            ROW_DIGEST: [digest] * len(rows),
            "error_stage": pa.array(["DecodeImages" if reason else None for reason in rows.values()], pa.string()),
            "error_reason": pa.array(list(rows.values()), pa.string()),
        }
    )


def write(folder: Path, table: pa.Table, **options: Any) -> dict[str, list[int]]:
    counts: dict[str, list[int]] = ShardWriter(folder=str(folder), schema=SCHEMA, **options).write(table).to_pydict()
    return counts


def found(folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Ids with the digests of their rows, in shards and in quarantine."""
    return {
        kind: sorted(
            (row["image_id"], row[ROW_DIGEST])
            for path in (folder / kind).glob("*.parquet")
            for row in pq.read_table(path).to_pylist()
        )
        for kind in ("shards", "quarantine")
    }


def test_finished_and_quarantined_rows_go_to_their_own_shards(tmp_path: Path) -> None:
    counts = write(tmp_path, make_rows(b=None, a=None, c="broken"))
    assert counts == {"num_finished": [2], "num_quarantined": [1]}
    (shard,) = (tmp_path / "shards").iterdir()
    (quarantine,) = (tmp_path / "quarantine").iterdir()
    rows = [{"image_id": name, "mask": name.encode(), ROW_DIGEST: "1"} for name in ("a", "b")]
    assert pq.read_table(shard).to_pylist() == rows
    assert pq.read_schema(shard).metadata[b"made by"] == b"a test"
    reason = {"stage": "DecodeImages", "reason": "broken", ROW_DIGEST: "1"}
    assert pq.read_table(quarantine).to_pylist() == [{"image_id": "c", **reason}]


def test_a_task_that_runs_again_overwrites_its_own_shard(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, b=None))
    (first,) = (tmp_path / "shards").iterdir()
    content = first.read_bytes()
    write(tmp_path, make_rows(b=None, a=None))
    (second,) = (tmp_path / "shards").iterdir()
    assert (second.name, second.read_bytes()) == (first.name, content)


def test_shards_of_different_ids_have_different_names(tmp_path: Path) -> None:
    for names in (["a", "b"], ["a\0b"], ['a", "b']):
        write(tmp_path, make_rows(**dict.fromkeys(names)))
    assert len(list((tmp_path / "shards").iterdir())) == 3


def test_one_image_is_a_small_part_of_a_shard(tmp_path: Path) -> None:
    table = pa.table({"image_id": [f"{number:02}" for number in range(16)], "mask": [b"x" * 300_000] * 16})
    uri = write_shard(str(tmp_path), "shards", table)
    assert uri is not None
    assert pq.ParquetFile(uri).metadata.num_row_groups == 6  # of three rows, less than a mebibyte


def test_png_files_on_request(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, c="broken"), png_column="mask")
    (path,) = (tmp_path / "png").iterdir()
    assert (path.name, path.read_bytes()) == ("a.png", b"a")


def test_no_rows_write_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, make_rows(a=None).slice(0, 0)) == {"num_finished": [0], "num_quarantined": [0]}
    assert write_shard(str(tmp_path), "shards", SCHEMA.empty_table()) is None
    assert list(tmp_path.iterdir()) == []


def test_one_output_of_each_row_is_left_and_a_finished_one_wins(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, b=None))
    write(tmp_path, make_rows(b=None, c=None, d="broken"))
    write(tmp_path, make_rows(c="denied", e="broken"))
    drop_rows(str(tmp_path), dict.fromkeys("abcde", "1"))
    left = {"shards": [("a", "1"), ("b", "1"), ("c", "1")], "quarantine": [("d", "1"), ("e", "1")]}
    assert found(tmp_path) == left
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    drop_rows(str(tmp_path), dict.fromkeys("abcde", "1"))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == before


def test_outputs_of_rows_as_they_were_go(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, b=None, c=None, d="broken", digest="1"))
    write(tmp_path, make_rows(b=None, c="broken", d=None, digest="2"))
    drop_rows(str(tmp_path), {"a": "1", "b": "2", "c": "2", "d": "2"})
    assert found(tmp_path) == {"shards": [("a", "1"), ("b", "2"), ("d", "2")], "quarantine": [("c", "2")]}


def test_outputs_of_other_images_stay(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, x=None, y="broken", digest="1"))
    drop_rows(str(tmp_path), {"a": "2"})
    assert found(tmp_path) == {"shards": [("x", "1")], "quarantine": [("y", "1")]}


def test_rows_that_stay_keep_their_metadata(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, b=None))
    drop_rows(str(tmp_path), {"a": "2"})
    (shard,) = (tmp_path / "shards").iterdir()
    assert pq.read_schema(shard).metadata[b"made by"] == b"a test"


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "ü ñ", "x" * 300, ".", "..", "a\\b", "\ud800"])
def test_ids_never_leave_the_folder(image_id: str) -> None:
    name = png_name(image_id)
    assert re.fullmatch(r"[A-Za-z0-9_~-]+\.png", name) or re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.png", name)
    assert len(name) < 120


def test_plain_ids_keep_their_name_and_odd_ones_stay_different() -> None:
    assert png_name("2007_000032") == "2007_000032.png"
    assert len({png_name(image_id) for image_id in ("a/b", "a-b", "a b", "a.b")}) == 4
