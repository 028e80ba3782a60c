from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raypipe.artifacts import Artifact
from raypipe.data.shards import read_rows
from raypipe.schema import MASKS, SEEDS
from raypipe.stages import load_shards
from raypipe.stages.base import Row
from raypipe.stages.load_shards import (
    LoadCams,
    LoadConfidences,
    LoadFromShard,
    LoadMaskPair,
    LoadMaskRows,
    LoadMasks,
    LoadSeeds,
)

EARLIER = Artifact("earlier", "e")


def write(path: Path, rows: list[Row], schema: pa.Schema, **options: Any) -> str:
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path, **options)
    return str(path)


@pytest.fixture
def shard_uri(tmp_path: Path) -> str:
    rows = [{"image_id": name, "cam": name.encode(), "cam_height": 1, "cam_width": 2} for name in ("a", "b")]
    return write(tmp_path / "s.parquet", rows, SEEDS)


def load(stage: Any, *rows: Row) -> list[Row]:
    schema = pa.schema([(name, pa.string()) for name in stage.reads])
    found: list[Row] = stage(pa.Table.from_pylist(list(rows), schema=schema)).to_pylist()
    return found


def columns(row: Row, stage: LoadFromShard) -> Row:
    assert row["error_reason"] is None
    return {name: row[name] for name in stage.writes.names}


def test_finds_the_row(shard_uri: str) -> None:
    (row,) = load(LoadCams(), {"image_id": "b", "shard_uri": shard_uri})
    assert columns(row, LoadCams()) == {"cam": b"b", "cam_height": 1, "cam_width": 2}


def test_reads_a_shard_once_for_all_rows(shard_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = write(tmp_path / "t.parquet", [{"image_id": "c", "cam": b"c"}], SEEDS)
    asked: list[tuple[str, list[str]]] = []

    def noted(uri: str, image_ids: Collection[str], *, columns: Sequence[str]) -> dict[str, Row]:
        asked.append((uri, list(image_ids)))
        return read_rows(uri, image_ids, columns=columns)

    monkeypatch.setattr(load_shards, "read_rows", noted)
    names = [("a", shard_uri), ("c", other), ("b", shard_uri)]
    rows = load(LoadCams(), *({"image_id": name, "shard_uri": uri} for name, uri in names))
    assert [row["cam"] for row in rows] == [b"a", b"c", b"b"]
    assert asked == [(shard_uri, ["a", "b"]), (other, ["c"])]


def test_a_row_that_is_absent_is_an_error_and_holds_up_nobody(shard_uri: str) -> None:
    good, bad = load(LoadCams(), *({"image_id": name, "shard_uri": shard_uri} for name in ("a", "c")))
    assert good["error_stage"] is None
    assert bad["error_stage"] == "LoadCams"
    assert f"{shard_uri} has no row 'c'; delete the shard to compute it again" in bad["error_reason"]


def test_a_row_in_error_is_not_looked_for() -> None:
    table = pa.table({"image_id": ["a"], "shard_uri": ["absent.parquet"], "error_stage": ["DecodeImages"]})
    (row,) = LoadCams()(table.append_column("error_reason", [["no image"]])).to_pylist()
    assert (row["error_stage"], row["error_reason"], row["cam"]) == ("DecodeImages", "no image", None)


@pytest.mark.parametrize(
    "stage", [LoadSeeds(seeds=EARLIER), LoadMasks(masks=EARLIER)], ids=lambda stage: type(stage).__name__
)
def test_where_a_row_may_be_missing_it_is_null(stage: LoadFromShard) -> None:
    (row,) = load(stage, {"image_id": "a"})
    assert columns(row, stage) == dict.fromkeys(stage.writes.names)


@pytest.mark.parametrize("stage", [LoadCams(), LoadConfidences(masks=EARLIER), LoadMaskRows(masks=EARLIER)])
def test_where_none_may_be_missing_it_is_an_error(stage: LoadFromShard) -> None:
    (row,) = load(stage, {"image_id": "a"})
    assert row["error_stage"] == type(stage).__name__


def test_a_row_takes_up_the_outputs_of_two_streams(shard_uri: str, tmp_path: Path) -> None:
    masks = write(tmp_path / "m.parquet", [{"image_id": "a", "mask": b"m"}], MASKS)
    table = pa.table({"image_id": ["a"], "seeds_shard_uri": [shard_uri], "shard_uri": [masks]})
    table = table.append_column("seeds_shard_digest", [["1"]]).append_column("shard_digest", [["2"]])
    (row,) = LoadMasks(masks=EARLIER)(LoadSeeds(seeds=EARLIER)(table)).to_pylist()
    assert (row["cam"], row["mask"], row["error_stage"]) == (b"a", b"m", None)


def test_a_pair_of_masks_is_one_before_and_one_after(tmp_path: Path) -> None:
    rows = [{"image_id": "a", "mask": name, "confidence": name, "areas": [0.5]} for name in (b"1", b"2")]
    before, after = (write(tmp_path / f"{index}.parquet", [row], MASKS) for index, row in enumerate(rows))
    uris = {"before_shard_uri": before, "shard_uri": after, "before_shard_digest": "1", "shard_digest": "2"}
    (row,) = load(LoadMaskPair(before=EARLIER, after=EARLIER), {"image_id": "a", **uris})
    assert (row["walk_mask"], row["mask"], row["confidence"], row["areas"]) == (b"1", b"2", b"2", [0.5])


@pytest.mark.parametrize("stage", [LoadSeeds, LoadMasks, LoadConfidences, LoadMaskRows, LoadMaskPair])
def test_an_output_depends_on_what_it_is_made_of(stage: type[LoadFromShard]) -> None:
    """Maps that are taken up in the place of computing them are none of what an output depends on."""
    assert any(name.endswith("shard_digest") for name in stage.reads)
    assert not any(name.endswith("shard_digest") for name in LoadCams.reads)


def test_shard_without_a_column_is_an_error(tmp_path: Path) -> None:
    pq.write_table(pa.table({"image_id": ["a"], "cam": [b"a"]}), tmp_path / "s.parquet")
    (row,) = load(LoadCams(), {"image_id": "a", "shard_uri": str(tmp_path / "s.parquet")})
    assert "s.parquet lacks columns ['cam_height', 'cam_width']" in row["error_reason"]
    assert "delete it" in row["error_reason"]


@pytest.mark.parametrize("place", ["page", "foot", "cut", "empty"])
def test_damaged_shard_is_an_error_that_names_it(tmp_path: Path, place: str) -> None:
    """A changed byte inside a map too: it would be a wrong mask."""
    path = tmp_path / "s.parquet"
    rows = [{"image_id": "a", "cam": b"noise", "cam_height": 1, "cam_width": 2}]
    write(path, rows, SEEDS, compression="none", write_page_checksum=True)
    data = bytearray(path.read_bytes())
    if place == "page":
        data[data.index(b"noise")] ^= 1
    elif place == "foot":
        data[-6] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(place, data))
    (row,) = load(LoadCams(), {"image_id": "a", "shard_uri": str(path)})
    assert f"ShardError: {path} can't be read" in row["error_reason"]
    assert ": if it is damaged, delete it and the summary" in row["error_reason"]
