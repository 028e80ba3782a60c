from pathlib import Path

import pyarrow as pa
import pytest

from raypipe.artifacts import Artifact
from raypipe.data.shards import ShardError
from raypipe.pipelines.held_rows import held, locate, with_quarantined
from raypipe.schema import ROW_DIGEST
from raypipe.streams.sink import ShardWriter

SCHEMA = pa.schema([pa.field("image_id", pa.string(), nullable=False), pa.field(ROW_DIGEST, pa.string())])


@pytest.fixture
def outputs(tmp_path: Path) -> Artifact:
    """A stream that has finished a, d in one shard and b, x in another, and quarantined c and e."""
    writer = ShardWriter(folder=str(tmp_path), schema=SCHEMA)
    for rows in (dict.fromkeys("ad"), {"b": None, "x": None, "c": "denied", "e": "broken"}):
        stages = pa.array([reason and "DecodeImages" for reason in rows.values()], pa.string())
        columns = {"image_id": list(rows), ROW_DIGEST: [f"digest of {name}" for name in rows], "error_stage": stages}
        writer.write(pa.table({**columns, "error_reason": pa.array(list(rows.values()), pa.string())}))
    return Artifact(str(tmp_path), "o")


ROWS = pa.table({"image_id": list("abcdf"), "number": range(5)})


def test_rows_are_matched_with_the_shards_that_hold_them(outputs: Artifact) -> None:
    rows = locate(ROWS, outputs)
    assert rows.column_names == ["image_id", "number", "shard_uri", "shard_digest"]
    assert sorted(rows.select(ROWS.column_names).to_pylist(), key=lambda row: row["number"]) == ROWS.to_pylist()
    found = {row["image_id"]: row for row in rows.to_pylist()}
    assert found["a"]["shard_uri"] == found["d"]["shard_uri"] != found["b"]["shard_uri"]
    assert found["b"]["shard_digest"] == "digest of b"
    assert found["c"]["shard_uri"] is found["f"]["shard_digest"] is None
    uris = [uri for uri in rows["shard_uri"].to_pylist() if uri is not None]
    assert uris == sorted(uris), "so that a block's rows lie in few shards"


def test_a_prefix_tells_two_streams_apart(outputs: Artifact) -> None:
    rows = locate(locate(ROWS, outputs), outputs, prefix="seeds_")
    assert rows.column_names[2:] == ["shard_uri", "shard_digest", "seeds_shard_uri", "seeds_shard_digest"]
    assert rows["shard_uri"].to_pylist() == rows["seeds_shard_uri"].to_pylist()


def test_only_what_is_finished_is_held(outputs: Artifact) -> None:
    assert sorted(held(ROWS, outputs)["image_id"].to_pylist()) == ["a", "b", "d"]


def test_a_stream_that_was_never_run_holds_nothing(tmp_path: Path) -> None:
    absent = Artifact(str(tmp_path / "absent"), "o")
    assert held(ROWS, absent).num_rows == 0
    assert locate(ROWS, absent)["shard_uri"].null_count == 5
    assert with_quarantined(ROWS, absent)["error_stage"].null_count == 5


def test_what_is_quarantined_stays_so_for_the_same_reason(outputs: Artifact) -> None:
    rows = with_quarantined(ROWS, outputs)
    assert rows.select(ROWS.column_names).equals(ROWS)
    assert rows["error_stage"].to_pylist() == [None, None, "DecodeImages", None, None]
    assert rows["error_reason"].to_pylist() == [None, None, "denied", None, None]


def test_rows_that_are_in_error_already_stay_so(outputs: Artifact) -> None:
    errors = {"error_stage": [None] * 4 + ["FetchImages"], "error_reason": [None] * 4 + ["absent"]}
    rows = ROWS
    for name, values in errors.items():
        rows = rows.append_column(name, pa.array(values, pa.string()))
    assert with_quarantined(rows, outputs)["error_reason"].to_pylist() == [None, None, "denied", None, "absent"]


def test_damaged_shard_is_named_before_anything_runs(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "s.parquet").write_bytes(b"PAR1 and nothing else")
    with pytest.raises(ShardError, match=r"s\.parquet can't be read"):
        locate(ROWS, Artifact(str(tmp_path), "o"))
