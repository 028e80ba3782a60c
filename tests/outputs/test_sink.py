import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.outputs.ledger import ENTRIES, read_ledger
from raypipe.outputs.sink import PART, PART_TODO, ShardWriter, png_name, write_shard
from raypipe.schema import ROW_DIGEST

SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("mask", pa.binary()),
        pa.field(ROW_DIGEST, pa.string()),
    ],
    metadata={"made by": "a test"},
)


def make_rows(*, part: str = "p", todo: int = 9, digest: str = "1", **rows: str | None) -> pa.Table:
    """Rows by id; a value is the reason of an error."""
    return pa.table(
        {
            "image_id": list(rows),
            "mask": pa.array([None if reason else name.encode() for name, reason in rows.items()], pa.binary()),
            "image": pa.array([b"no output"] * len(rows), pa.binary()),
            ROW_DIGEST: [digest] * len(rows),
            PART: [part] * len(rows),
            PART_TODO: [todo] * len(rows),
            "error_stage": pa.array(["DecodeImages" if reason else None for reason in rows.values()], pa.string()),
            "error_reason": pa.array(list(rows.values()), pa.string()),
        }
    )


def write(folder: Path, table: pa.Table, **options: Any) -> list[dict[str, Any]]:
    writer = ShardWriter(**{"folder": str(folder), "schema": SCHEMA, "run": 3, **options})
    written: list[dict[str, Any]] = writer.write(table).to_pylist()
    return written


def files(folder: Path, kind: str) -> list[Path]:
    return sorted(path for path in (folder / kind).rglob("*") if path.is_file())


def test_finished_and_quarantined_rows_go_to_their_own_files(tmp_path: Path) -> None:
    (written,) = write(tmp_path, make_rows(b=None, a=None, c="broken"))
    (shard,) = files(tmp_path, "attempts/p")
    (index,) = files(tmp_path, "index/p")
    (quarantine,) = files(tmp_path, "quarantine/p")
    assert written == {
        "part": "p",
        "part_todo": 9,
        "num_finished": 2,
        "num_quarantined": 1,
        "index": str(index),
        "quarantine": str(quarantine),
    }
    rows = [{"image_id": name, "mask": name.encode(), ROW_DIGEST: "1"} for name in ("a", "b")]
    assert pq.read_table(shard).to_pylist() == rows
    assert pq.read_schema(shard).metadata[b"made by"] == b"a test"
    place = {"shard": f"attempts/p/{shard.name}", "size": shard.stat().st_size}
    assert pq.read_table(index).to_pylist() == [
        {"image_id": name, ROW_DIGEST: "1", "row": row, **place} for row, name in enumerate(("a", "b"))
    ]
    reason = {"stage": "DecodeImages", "reason": "broken", ROW_DIGEST: "1"}
    assert pq.read_table(quarantine).to_pylist() == [{"image_id": "c", **reason}]
    assert not (tmp_path / "shards").exists(), "nobody but raypipe sees them yet"


def test_rows_of_several_parts_are_written_part_by_part(tmp_path: Path) -> None:
    table = pa.concat_tables([make_rows(part="p", a=None, b=None), make_rows(part="q", todo=2, c=None, d="broken")])
    written = write(tmp_path, table)
    assert [(row["part"], row["part_todo"], row["num_finished"], row["num_quarantined"]) for row in written] == [
        ("p", 9, 2, 0),
        ("q", 2, 1, 1),
    ]
    assert sorted(read_ledger(str(tmp_path), "p").finished["image_id"].to_pylist()) == ["a", "b"]
    of_q = read_ledger(str(tmp_path), "q")
    assert (of_q.finished["image_id"].to_pylist(), of_q.quarantined["image_id"].to_pylist()) == (["c"], ["d"])


def test_where_all_rows_fail_there_is_no_shard(tmp_path: Path) -> None:
    (written,) = write(tmp_path, make_rows(a="broken"))
    assert (written["index"], written["num_finished"], written["num_quarantined"]) == (None, 0, 1)
    assert files(tmp_path, "attempts") == files(tmp_path, "index") == []


def test_a_task_that_runs_again_overwrites_its_own_files(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, b=None, c="broken"))
    content = {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")}
    assert len(content) == 3
    write(tmp_path, make_rows(b=None, c="broken", a=None))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.parquet")} == content


def test_files_say_which_run_wrote_them(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None), run=3)
    write(tmp_path, make_rows(b=None), run=4)
    names = sorted(path.name.split("-")[1] for path in tmp_path.glob("index/p/*.parquet"))
    assert names == ["3", "4"]
    assert sorted(read_ledger(str(tmp_path), "p").finished["image_id"].to_pylist()) == ["a", "b"]


def test_shards_of_different_ids_have_different_names(tmp_path: Path) -> None:
    for names in (["a", "b"], ["a\0b"], ['a", "b']):
        write(tmp_path, make_rows(**dict.fromkeys(names)))
    assert len(files(tmp_path, "attempts")) == 3


def test_a_row_that_changed_is_another_shard(tmp_path: Path) -> None:
    for digest in "12":
        write(tmp_path, make_rows(a=None, digest=digest))
    assert len(files(tmp_path, "attempts")) == 2


def test_one_image_is_a_small_part_of_a_shard(tmp_path: Path) -> None:
    names = [f"{number:02}" for number in range(16)]
    table = pa.table({"image_id": names, "mask": [b"x" * 300_000] * 16, ROW_DIGEST: names})
    entries = write_shard(str(tmp_path), "shards", "p", table)
    assert entries.schema.equals(ENTRIES)
    (shard,) = files(tmp_path, "shards/p")
    assert pq.ParquetFile(shard).metadata.num_row_groups == 6  # of three rows, less than a mebibyte


def test_png_files_on_request(tmp_path: Path) -> None:
    write(tmp_path, make_rows(a=None, c="broken"), png_column="mask")
    (path,) = (tmp_path / "png").iterdir()
    assert (path.name, path.read_bytes()) == ("a.png", b"a")


def test_no_rows_write_nothing(tmp_path: Path) -> None:
    assert write(tmp_path, make_rows(a=None).slice(0, 0)) == []
    assert write_shard(str(tmp_path), "shards", "p", SCHEMA.empty_table()).num_rows == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("image_id", ["../../etc/passwd", "a/b", "ü ñ", "x" * 300, ".", "..", "a\\b", "\ud800"])
def test_ids_never_leave_the_folder(image_id: str) -> None:
    name = png_name(image_id)
    assert re.fullmatch(r"[A-Za-z0-9_~-]+\.png", name) or re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*\.png", name)
    assert len(name) < 120


def test_plain_ids_keep_their_name_and_odd_ones_stay_different() -> None:
    assert png_name("2007_000032") == "2007_000032.png"
    assert len({png_name(image_id) for image_id in ("a/b", "a-b", "a b", "a.b")}) == 4
