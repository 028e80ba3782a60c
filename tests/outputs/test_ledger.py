from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from raypipe.outputs.ledger import (
    ATTEMPTS,
    ENTRIES,
    INDEX,
    QUARANTINED,
    SETTLED,
    Catalogue,
    fold,
    read_ledger,
    without_lost,
    write_entries,
)
from raypipe.schema import ROW_DIGEST


def entries(*ids: str, digest: str = "1", shard: str = "attempts/a/x.parquet") -> pa.Table:
    columns = {
        "image_id": list(ids),
        ROW_DIGEST: [digest] * len(ids),
        "shard": [shard] * len(ids),
        "row": list(range(len(ids))),
        "size": [7] * len(ids),
    }
    return pa.table(columns).cast(ENTRIES)


def reasons(*ids: str) -> pa.Table:
    return pa.table(
        {"image_id": ids, "stage": ["S"] * len(ids), "reason": ["R"] * len(ids), ROW_DIGEST: ["1"] * len(ids)}
    )


def write(folder: Path, table: pa.Table, *, kind: str = INDEX, run: int = 1, **options: Any) -> str:
    uri = write_entries(str(folder), kind, "a", table, run=run, **options)
    assert uri is not None
    return uri


def ids(table: pa.Table) -> list[str]:
    return sorted(table["image_id"].to_pylist())


def test_nothing_is_done_of_a_part_that_nobody_has_begun(tmp_path: Path) -> None:
    ledger = read_ledger(str(tmp_path), "a")
    assert (ledger.finished.num_rows, ledger.quarantined.num_rows, ledger.is_settled) == (0, 0, True)
    assert Catalogue.of(str(tmp_path)).files == {}
    assert write_entries(str(tmp_path), INDEX, "a", ENTRIES.empty_table(), run=1) is None


def test_what_workers_have_written_is_done(tmp_path: Path) -> None:
    write(tmp_path, entries("a", "b"))
    write(tmp_path, entries("c", shard="attempts/a/y.parquet"))
    write(tmp_path, reasons("d"), kind=QUARANTINED)
    ledger = read_ledger(str(tmp_path), "a")
    assert (ids(ledger.finished), ids(ledger.quarantined), ledger.is_settled) == (["a", "b", "c"], ["d"], False)
    assert ledger.finished.schema.equals(ENTRIES)
    assert list(Catalogue.of(str(tmp_path)).files) == ["a"]


def test_a_task_that_runs_twice_counts_once(tmp_path: Path) -> None:
    assert write(tmp_path, entries("a", "b")) == write(tmp_path, entries("a", "b"))
    write(tmp_path, entries("b", "c", shard="attempts/a/y.parquet"))
    assert ids(read_ledger(str(tmp_path), "a").finished) == ["a", "b", "c"]
    write(tmp_path, entries("a", digest="2"))
    assert ids(read_ledger(str(tmp_path), "a").finished) == ["a", "a", "b", "c"], "two digests are two outputs"


def test_of_a_row_that_stands_there_twice_the_most_settled_counts(tmp_path: Path) -> None:
    write(tmp_path, entries("a", shard="attempts/a/x.parquet"))
    write(tmp_path, entries("a", shard="shards/a/y.parquet"), level=SETTLED)
    (row,) = read_ledger(str(tmp_path), "a").finished.to_pylist()
    assert row["shard"] == "shards/a/y.parquet"


def test_what_comes_after_a_catalogue_is_not_in_it(tmp_path: Path) -> None:
    write(tmp_path, entries("a"), run=1)
    catalogue = Catalogue.of(str(tmp_path))
    write(tmp_path, entries("b"), run=2)
    assert ids(catalogue.read("a").finished) == ["a"]
    assert ids(read_ledger(str(tmp_path), "a").finished) == ["a", "b"]
    assert catalogue.read("unknown").finished.num_rows == 0


def test_files_are_folded_to_one_of_the_next_level(tmp_path: Path) -> None:
    uris = [write(tmp_path, entries(f"i{number}", shard=f"attempts/a/{number}.parquet")) for number in range(10)]
    folded = fold(str(tmp_path), INDEX, "a", uris, run=1)
    (path,) = (tmp_path / "index" / "a").iterdir()
    assert folded is not None
    assert path.name == folded.rsplit("/", 1)[1]
    assert path.name.startswith("1-1-")
    ledger = read_ledger(str(tmp_path), "a")
    assert ids(ledger.finished) == [f"i{number}" for number in range(10)]
    assert {row["shard"] for row in ledger.finished.to_pylist()} == {
        f"attempts/a/{number}.parquet" for number in range(10)
    }
    again = [write(tmp_path, entries("i3", "new", shard="attempts/a/z.parquet")), folded]
    assert (
        fold(
            str(tmp_path),
            INDEX,
            "a",
            again,
            run=1,
        )
        .rsplit("/", 1)[1]
        .startswith("2-1-")
    )  # type: ignore[union-attr]
    assert ids(read_ledger(str(tmp_path), "a").finished) == [*(f"i{number}" for number in range(10)), "new"]


def test_a_fold_that_runs_again_loses_nothing(tmp_path: Path) -> None:
    uris = [write(tmp_path, entries(f"i{number}")) for number in range(3)]
    folded = fold(str(tmp_path), INDEX, "a", uris, run=1)
    assert fold(str(tmp_path), INDEX, "a", uris, run=1) is None, "the files are gone, and so is the need"
    assert ids(read_ledger(str(tmp_path), "a").finished) == ["i0", "i1", "i2"]
    assert folded is not None


def test_rows_whose_shard_somebody_has_deleted_are_not_done(tmp_path: Path) -> None:
    (tmp_path / ATTEMPTS / "a").mkdir(parents=True)
    (tmp_path / ATTEMPTS / "a" / "x.parquet").write_text("there")
    write(tmp_path, entries("a", "b"))
    write(tmp_path, entries("c", shard="attempts/a/gone.parquet"))
    ledger = read_ledger(str(tmp_path), "a")
    assert ids(without_lost(str(tmp_path), "a", ledger).finished) == ["a", "b"]


def test_of_many_shards_the_lost_ones_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A listing of many names is split by their first letter."""
    monkeypatch.setattr("raypipe.outputs.ledger._NAMES_AN_ANSWER", 3)
    (tmp_path / ATTEMPTS / "a").mkdir(parents=True)
    for name in ("0a", "0b", "1a", "fa"):
        (tmp_path / ATTEMPTS / "a" / f"{name}.parquet").write_text("there")
        write(tmp_path, entries(name, shard=f"attempts/a/{name}.parquet"))
    for name in ("0c", "2a"):
        write(tmp_path, entries(name, shard=f"attempts/a/{name}.parquet"))
    ledger = read_ledger(str(tmp_path), "a")
    assert ids(without_lost(str(tmp_path), "a", ledger).finished) == ["0a", "0b", "1a", "fa"]


def test_a_damaged_file_is_named_with_the_way_out(tmp_path: Path) -> None:
    write(tmp_path, entries("a"))
    (path,) = (tmp_path / "index" / "a").iterdir()
    path.write_bytes(b"not Parquet")
    with pytest.raises(ValueError, match=f"{path.name} can't be read .* delete it"):
        read_ledger(str(tmp_path), "a")
