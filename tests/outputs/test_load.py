"""What a stream takes from the outputs of another one, by shards of a few rows."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stream_outputs import write_outputs, write_quarantine

from raypipe import storage
from raypipe.artifacts import Artifact
from raypipe.data.rows import Rows
from raypipe.data.shards import ShardError
from raypipe.outputs import load as module
from raypipe.outputs.ledger import read_ledger
from raypipe.outputs.load import Load, _merged, held, loaded, read_columns, with_places, with_quarantined
from raypipe.schema import ROW_DIGEST

OUTPUTS = pa.schema([pa.field("image_id", pa.string()), pa.field("cam", pa.binary()), pa.field("height", pa.int64())])
CAMS = pa.schema([OUTPUTS.field("cam"), OUTPUTS.field("height")])
ROWS = pa.table({"image_id": list("dacbe"), "number": range(5)})


def made(*names: str) -> list[dict[str, Any]]:
    return [{"image_id": name, "cam": name.encode(), "height": ord(name)} for name in names]


@pytest.fixture
def outputs(tmp_path: Path) -> Artifact:
    """A stream that has finished a and c in one shard and b and x in another, and quarantined d; e is to come."""
    write_quarantine(str(tmp_path / "seeds"), {"d": ("DecodeImages", "cut off")})
    return write_outputs(str(tmp_path / "seeds"), OUTPUTS, made("a", "c", "b", "x"), rows_per_shard=2)


def placed(table: pa.Table, outputs: Artifact, *, prefix: str = "") -> pa.Table:
    return with_places(table, read_ledger(outputs.uri, "all"), outputs, prefix=prefix)


def by_id(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["image_id"]: row for row in table.to_pylist()}


def take(loads: list[Load], table: pa.Table = ROWS, *, rows_per_table: int = 10) -> dict[str, dict[str, Any]]:
    """Rows with what is loaded, by their ids."""
    for load in loads:
        table = placed(table, load.outputs, prefix=load.prefix)
    return by_id(pa.concat_tables(loaded(table, loads, rows_per_table=rows_per_table)))


def test_rows_are_matched_with_their_places(outputs: Artifact) -> None:
    table = placed(ROWS, outputs)
    assert table.column_names == ["image_id", "number", "shard_uri", "shard_row", "shard_digest"]
    assert table.select(ROWS.column_names).equals(ROWS)
    rows = by_id(table)
    assert rows["a"]["shard_uri"] == rows["c"]["shard_uri"] != rows["b"]["shard_uri"]
    assert [rows[name]["shard_row"] for name in "acb"] == [0, 1, 0]
    assert rows["b"]["shard_digest"] == "of b"
    for name in "de":
        assert rows[name]["shard_uri"] is rows[name]["shard_row"] is rows[name]["shard_digest"] is None
    for name in "acb":
        shard = pq.read_table(rows[name]["shard_uri"]).to_pylist()
        assert shard[rows[name]["shard_row"]]["image_id"] == name


def test_a_stream_that_was_never_run_holds_nothing(tmp_path: Path) -> None:
    absent = Artifact(str(tmp_path / "absent"), "o")
    assert placed(ROWS, absent)["shard_uri"].null_count == 5
    rows = held(Rows.of(ROWS), absent)
    assert rows.read(rows.parts[0]).num_rows == 0


def test_only_what_is_finished_is_held(outputs: Artifact) -> None:
    everything = Rows.of(ROWS)
    (part,) = everything.parts
    assert sorted(held(everything, outputs).read(part)["image_id"].to_pylist()) == ["a", "b", "c"]
    optional = held(everything, outputs, prefix="m_", optional=True)
    assert optional.columns == ["image_id", "number", "m_shard_uri", "m_shard_row", "m_shard_digest"]
    assert optional.read(part)["m_shard_uri"].null_count == 2


def test_what_is_quarantined_stays_so_for_the_same_reason(outputs: Artifact) -> None:
    ledger = read_ledger(outputs.uri, "all")
    rows = by_id(with_quarantined(ROWS, ledger))
    assert (rows["d"]["error_stage"], rows["d"]["error_reason"]) == ("DecodeImages", "cut off")
    assert all(rows[name]["error_stage"] is None for name in "acbe")
    errors = {"error_stage": ["FetchImages", *[None] * 4], "error_reason": ["absent", *[None] * 4]}
    earlier = ROWS
    for name, values in errors.items():
        earlier = earlier.append_column(name, pa.array(values, pa.string()))
    assert by_id(with_quarantined(earlier, ledger))["d"]["error_reason"] == "absent", "rows in error stay as they are"


def test_columns_come_with_their_rows(outputs: Artifact) -> None:
    rows = take([Load(outputs=outputs, columns=CAMS)])
    assert {name: (row["cam"], row["height"]) for name, row in rows.items()} == {
        **{name: (name.encode(), ord(name)) for name in "acb"},
        **dict.fromkeys("de", (None, None)),
    }
    assert {name: row["number"] for name, row in rows.items()} == {"d": 0, "a": 1, "c": 2, "b": 3, "e": 4}
    assert all(row["error_stage"] is None for row in rows.values())


def test_rows_come_in_the_order_of_shards_each_of_which_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{number:02}" for number in range(20)]
    outputs = write_outputs(
        str(tmp_path), OUTPUTS, [{"image_id": name, "cam": name.encode()} for name in names], rows_per_shard=5
    )
    read: Counter[str] = Counter()
    original = module.read_columns

    def noted(uri: str, *args: Any, **options: Any) -> Any:
        read[uri] += 1
        return original(uri, *args, **options)

    monkeypatch.setattr(module, "read_columns", noted)
    shuffled = pa.table({"image_id": [names[index] for index in np.random.default_rng(0).permutation(20)]})
    load = Load(outputs=outputs, columns=CAMS)
    tables = list(loaded(placed(shuffled, outputs), [load], rows_per_table=3))
    assert [table.num_rows for table in tables] == [3] * 6 + [2]
    rows = pa.concat_tables(tables)
    assert rows["cam"].to_pylist() == [name.encode() for name in rows["image_id"].to_pylist()]
    places = by_id(placed(shuffled, outputs))
    uris = [places[name]["shard_uri"] for name in rows["image_id"].to_pylist()]
    assert uris == sorted(uris)
    assert sorted(rows.column_names) == sorted(["image_id", *CAMS.names, "error_stage", "error_reason"])
    assert len(read) == 4
    assert set(read.values()) == {1}


def test_a_row_takes_up_the_outputs_of_two_streams(outputs: Artifact, tmp_path: Path) -> None:
    masks = write_outputs(
        str(tmp_path / "masks"), OUTPUTS, [{"image_id": name, "cam": b"m" + name.encode()} for name in "bce"]
    )
    cams = pa.schema([OUTPUTS.field("cam")])
    seeds = Load(outputs=outputs, columns=CAMS, prefix="seeds_", optional=True)
    rows = take([seeds, Load(outputs=masks, columns=cams, names=("mask",))], rows_per_table=2)
    assert {name: (row["cam"], row["mask"]) for name, row in rows.items()} == {
        "a": (b"a", None),
        "b": (b"b", b"mb"),
        "c": (b"c", b"mc"),
        "d": (None, None),
        "e": (None, b"me"),
    }
    assert seeds.writes == ["cam", "height"]


def test_without_loads_rows_stay_as_they_are() -> None:
    assert [table.num_rows for table in loaded(ROWS, [], rows_per_table=2)] == [2, 2, 1]
    assert pa.concat_tables(loaded(ROWS, [], rows_per_table=2)).equals(ROWS)


@pytest.mark.parametrize("place", ["page", "foot", "cut", "empty", "gone"])
def test_rows_of_a_damaged_shard_are_in_error_and_hold_up_nobody(outputs: Artifact, place: str) -> None:
    """A changed byte inside a map too: it would be a wrong mask."""
    uri = by_id(placed(ROWS, outputs))["b"]["shard_uri"]
    path = Path(uri)
    data = bytearray(path.read_bytes())
    if place == "page":
        columns = pq.ParquetFile(path).metadata.row_group(0)
        (cam,) = (columns.column(i) for i in range(columns.num_columns) if columns.column(i).path_in_schema == "cam")
        data[cam.data_page_offset + cam.total_compressed_size - 3] ^= 1
    elif place == "foot":
        data[-6] ^= 0xFF
    path.write_bytes({"cut": data[: len(data) // 2], "empty": b""}.get(place, data))
    if place == "gone":
        path.unlink()
    rows = take([Load(outputs=outputs, columns=CAMS)])
    assert (rows["a"]["cam"], rows["a"]["error_stage"]) == (b"a", None)
    assert (rows["b"]["cam"], rows["b"]["error_stage"]) == (None, "Load")
    assert f"{path} can't be read" in rows["b"]["error_reason"]
    assert "delete it, and the same command computes its rows again" in rows["b"]["error_reason"]


def test_a_shard_without_a_column_is_an_error(outputs: Artifact) -> None:
    rows = take([Load(outputs=outputs, columns=pa.schema([("trimap", pa.binary())]))])
    assert "lacks columns ['trimap']" in rows["a"]["error_reason"]


def test_a_shard_of_fewer_rows_than_its_index_says_is_an_error(outputs: Artifact) -> None:
    uri = by_id(placed(ROWS, outputs))["c"]["shard_uri"]
    pq.write_table(pq.read_table(uri).slice(0, 1), uri)
    rows = take([Load(outputs=outputs, columns=CAMS)])
    assert "has 1 rows, and its index names row 1" in rows["c"]["error_reason"]


def test_an_error_that_a_row_has_already_stays(outputs: Artifact) -> None:
    Path(by_id(placed(ROWS, outputs))["b"]["shard_uri"]).unlink()
    table = placed(with_quarantined(ROWS, read_ledger(outputs.uri, "all")), outputs)
    rows = by_id(pa.concat_tables(loaded(table, [Load(outputs=outputs, columns=CAMS)], rows_per_table=10)))
    assert rows["d"]["error_stage"] == "DecodeImages"
    assert rows["b"]["error_stage"] == "Load"


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A shard of twelve rows in six groups of a megabyte that can't be compressed; half of it is another column."""
    rng = np.random.default_rng(0)
    rows = [{"image_id": f"{row:02}", "cam": rng.bytes(250_000), "image": rng.bytes(250_000)} for row in range(12)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "large.parquet", row_group_size=2, compression="zstd")
    return str(tmp_path / "large.parquet")


def test_only_the_wanted_groups_and_columns_are_read(large: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, _ = storage.filesystem(large)
    asked: list[tuple[int, int]] = []
    original = type(fs).cat_ranges

    def noted(self: Any, paths: list[str], starts: list[int], ends: list[int], **options: Any) -> Any:
        asked.extend(zip(starts, ends, strict=True))
        return original(self, paths, starts, ends, **options)

    monkeypatch.setattr(type(fs), "cat_ranges", noted)
    found = read_columns(large, ["cam"], rows=[1, 8])
    expected = pq.read_table(large).to_pylist()
    for row in (0, 1, 8, 9):
        assert found.row(row) == {"cam": expected[row]["cam"]}
    assert found.table.num_rows == 4
    assert len(asked) == 2, "what lies between is ten times as large"
    assert 1_000_000 < sum(stop - start for start, stop in asked) < 1.2 * 4 * 250_000


def test_all_rows_of_a_column_take_few_requests(large: str) -> None:
    found = read_columns(large, ["cam"], rows=list(range(12)))
    assert [found.row(row)["cam"] for row in range(12)] == pq.read_table(large)["cam"].to_pylist()


def test_a_shard_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match=r"absent\.parquet can't be read"):
        read_columns(str(tmp_path / "absent.parquet"), ["cam"], rows=[0])


@pytest.mark.parametrize(
    ("ranges", "merged"),
    [
        ([], []),
        ([(4, 10)], [(4, 10)]),
        ([(0, 10), (10, 20)], [(0, 20)]),  # nothing between them
        ([(0, 100), (110, 200)], [(0, 200)]),  # 10 of the 38 bytes that may be wasted
        ([(0, 10), (20, 30)], [(0, 10), (20, 30)]),  # 10 would be half of what is wanted
        # Of 300 bytes 60 may be wasted: the gap of 20, then that of 30; 40 more would be too much.
        ([(0, 100), (140, 190), (210, 260), (290, 390)], [(0, 100), (140, 390)]),
    ],
)
def test_ranges_are_joined_as_long_as_little_is_fetched_for_nothing(
    ranges: list[tuple[int, int]], merged: list[tuple[int, int]]
) -> None:
    assert _merged(ranges) == merged


def test_what_is_loaded_is_known_by_its_row() -> None:
    """The digest of a row's place is in its own digest, not in the table that is loaded."""
    assert ROW_DIGEST not in CAMS.names
    assert Load(outputs=Artifact("s", "d"), columns=CAMS).part_of_plan


def test_shards_in_a_bucket(bucket: str) -> None:
    outputs = write_outputs(f"{bucket}/seeds", OUTPUTS, made(*"acb"), rows_per_shard=2)
    rows = take([Load(outputs=outputs, columns=CAMS)])
    assert {name: row["cam"] for name, row in rows.items() if row["cam"]} == {"a": b"a", "b": b"b", "c": b"c"}
    storage.delete(by_id(placed(ROWS, outputs))["b"]["shard_uri"])
    assert take([Load(outputs=outputs, columns=CAMS)])["b"]["error_stage"] == "Load"
