import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

import pyarrow as pa
import pytest

from raypipe.stages.base import ERRORS, ROWS_PER_CHUNK, Kind, Row, Stage, columns_after, run_stages


@dataclass(kw_only=True)
class Half(Stage):
    reads = ("number",)
    writes = pa.schema([pa.field("half", pa.int64())])

    def process(self, row: Row) -> Row:
        if row["number"] % 2:
            raise ValueError(f"{row['number']} is odd")
        if row["number"] == 4:
            raise ConnectionError("network down")
        return {"half": row["number"] // 2}


@dataclass(kw_only=True)
class Noted(Stage):
    """Notes how many rows it gets at a time."""

    seen: list[int] = field(default_factory=list)

    reads = ("number",)

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        self.seen.append(len(rows))
        return super().process_all(rows)

    def process(self, row: Row) -> Row:  # noqa: ARG002 - adds no column
        return {}


@dataclass(kw_only=True)
class Fetch(Noted):
    @property
    def kind(self) -> Kind:
        return "fetch"


@dataclass(kw_only=True)
class Decode(Stage):
    """Leaves pixels, in threads that run ahead."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    reads = ("number",)
    leaves = ("pixels",)
    ahead = True

    def process(self, row: Row) -> Row:
        self.slept.append(sleep(self.seconds))
        if row["number"] < 0:
            raise ValueError("no image")
        return {"pixels": [row["number"]] * 2}


@dataclass(kw_only=True)
class Sum(Stage):
    """Adds pixels up; refuses to be run twice at a time."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)
    busy: Lock = field(default_factory=Lock)

    reads = ("pixels",)
    writes = pa.schema([pa.field("sum", pa.int64())])

    def process(self, row: Row) -> Row:
        assert self.busy.acquire(blocking=False), "two calls at a time"
        self.slept.append(sleep(self.seconds))
        self.busy.release()
        return {"sum": sum(row["pixels"])}


def sleep(seconds: float) -> float:
    """Sleeps at least so long; how long it really was, as a busy machine wakes late."""
    started = time.perf_counter()
    time.sleep(seconds)
    return time.perf_counter() - started


def make_table(*numbers: int, **columns: Any) -> pa.Table:
    return pa.table({"image_id": [str(number) for number in numbers], "number": list(numbers), **columns})


def test_maps_columns() -> None:
    out = Half()(make_table(2, 6))
    assert out.column_names == ["image_id", "number", "half", *ERRORS.names]
    assert out["half"].to_pylist() == [1, 3]
    assert out["error_stage"].null_count == 2


def test_row_in_error_stays_with_stage_and_reason_and_passes_by() -> None:
    out = Half()(make_table(2, 3))
    good, bad = out.to_pylist()
    assert good["half"] == 1
    assert bad["half"] is None
    assert (bad["error_stage"], bad["error_reason"]) == ("Half", "ValueError: 3 is odd")
    assert Half()(out).to_pylist()[1] == bad
    assert run_stages([Half(), Half()], make_table(3)).to_pylist() == [bad]


def test_machine_trouble_is_raised_not_quarantined() -> None:
    with pytest.raises(ConnectionError):
        Half()(make_table(4))


def test_reason_has_an_end() -> None:
    class Endless(Half):
        def process(self, row: Row) -> Row:
            raise ValueError(f"{row['number']}" * 100_000)

    assert len(Endless()(make_table(2)).to_pylist()[0]["error_reason"]) == 1000


def test_empty_table_keeps_its_schema() -> None:
    assert Half()(make_table(2).slice(0, 0)).schema == Half()(make_table(2)).schema


def test_a_column_that_nobody_reads_is_handed_on_as_it_is() -> None:
    table = make_table(2, 3, image=[b"x" * 100, b"y" * 100])
    out = run_stages([Half()], table)
    for name in ("image", "number"):
        buffers = [[buffer and buffer.address for buffer in found[name].chunk(0).buffers()] for found in (table, out)]
        assert buffers[0] == buffers[1]
    assert out["number"].to_pylist() == [2, 3]


def test_a_column_that_is_written_again_is_replaced() -> None:
    out = run_stages([Half()], make_table(6, half=[0]))
    assert out.column_names == ["image_id", "number", "half", *ERRORS.names]
    assert out["half"].to_pylist() == [3]


@pytest.mark.parametrize(
    ("keep", "names"),
    [
        (None, ["image_id", "number", "half", "sum"]),
        (("image_id", "sum", "later"), ["image_id", "sum"]),
        ((), []),
    ],
)
def test_only_what_somebody_needs_is_kept(keep: tuple[str, ...] | None, names: list[str]) -> None:
    out = run_stages([Decode(), Half(), Sum()], make_table(2, 3), keep=keep)
    assert out.column_names == [*names, *ERRORS.names], "pixels never leave"
    assert out["error_stage"].to_pylist() == [None, "Half"]


@pytest.mark.parametrize("threads", [None, ThreadPoolExecutor(2)])
def test_rows_come_in_their_order_whoever_runs_ahead(threads: ThreadPoolExecutor | None) -> None:
    numbers = [*range(2, 60), -1, 61]
    fetch, behind = Fetch(), Noted()
    out = run_stages([fetch, Decode(), Sum(), behind], make_table(*numbers), threads=threads, alone=Lock())
    assert out["sum"].to_pylist() == [None if number < 0 else 2 * number for number in numbers]
    assert out.filter(pa.compute.is_valid(out["error_stage"])).select(["number", *ERRORS.names]).to_pylist() == [
        {"number": -1, "error_stage": "Decode", "error_reason": "ValueError: no image"}
    ]
    assert fetch.seen == [60], "what waits for storage sees all rows at once"
    assert behind.seen == [ROWS_PER_CHUNK] * 7 + [4]


def test_what_goes_wrong_in_a_thread_is_raised() -> None:
    class Broken(Decode):
        def process(self, row: Row) -> Row:  # noqa: ARG002 - whatever it is
            raise ConnectionResetError

    with ThreadPoolExecutor(2) as threads, pytest.raises(ConnectionResetError):
        run_stages([Broken(), Sum()], make_table(1), threads=threads)


NUM_ROWS, NUM_THREADS = 96, 2


def ratio_to_the_slower(decoding: float, computing: float, *, calls: int) -> float:
    """Wall time of `NUM_ROWS` rows over that of decoder or network alone, whichever took longer.

    The rows come in so many tables, of which two are at work at a time, as in an actor.
    """
    decoder, network = Decode(seconds=NUM_THREADS * decoding), Sum(seconds=computing)
    size = NUM_ROWS // calls
    tables = [make_table(*range(start, start + size)) for start in range(0, NUM_ROWS, size)]
    turn, alone = Lock(), Lock()
    with ThreadPoolExecutor(NUM_THREADS) as threads, ThreadPoolExecutor(2) as actor:
        started = time.perf_counter()
        done = [
            actor.submit(run_stages, [decoder, network], table, threads=threads, turn=turn, alone=alone)
            for table in tables
        ]
        sums = [number for future in done for number in future.result()["sum"].to_pylist()]
        seconds = time.perf_counter() - started
    assert sums == [2 * number for number in range(NUM_ROWS)]
    return seconds / max(sum(decoder.slept) / NUM_THREADS, sum(network.slept))


@pytest.mark.parametrize("calls", [1, 3])
@pytest.mark.parametrize(("decoding", "computing"), [(0.01, 0.005), (0.005, 0.01), (0.01, 0.01)])
def test_the_network_never_waits_for_the_decoder(decoding: float, computing: float, calls: int) -> None:
    tries = (ratio_to_the_slower(decoding, computing, calls=calls) for _ in range(10))
    assert any(ratio <= 1.15 for ratio in tries)  # the machine may be busy with something else


def test_columns_after_stages_by_hand() -> None:
    assert columns_after(["image_id", "number"], [Half()]) == ["image_id", "number", "half", *ERRORS.names]
    assert columns_after(["number", *ERRORS.names], [Decode(), Sum()]) == ["number", "sum", *ERRORS.names]


def test_a_missing_column_is_named_with_what_is_there() -> None:
    with pytest.raises(ValueError, match=r"Half reads \['number'\], .* only \['image_id'\]; put the stage that writes"):
        columns_after(["image_id"], [Half()])
    with pytest.raises(ValueError, match=r"Sum reads \['pixels'\], .* only \['number'\]"):
        run_stages([Sum(), Decode()], make_table(2).select(["number"]))
