from typing import Any

import pyarrow as pa
import pytest

from raypipe.stages.base import ERRORS, Row, Stage


class Half(Stage):
    reads = ("number",)
    writes = pa.schema([pa.field("half", pa.int64())])
    drops = ("waste",)

    def process(self, row: Row) -> Row:
        if row["number"] % 2:
            raise ValueError(f"{row['number']} is odd")
        if row["number"] == 4:
            raise ConnectionError("network down")
        return {"half": row["number"] // 2}


def make_batch(*numbers: int, **columns: Any) -> pa.Table:
    columns = {"image_id": [str(number) for number in numbers], "number": list(numbers), **columns}
    return pa.table({**columns, "waste": ["x"] * len(numbers)})


def test_maps_columns_and_drops_those_not_needed() -> None:
    out = Half()(make_batch(2, 6))
    assert out.column_names == ["image_id", "number", "half", *ERRORS.names]
    assert out["half"].to_pylist() == [1, 3]
    assert out["error_stage"].null_count == 2


def test_row_in_error_stays_with_stage_and_reason() -> None:
    out = Half()(make_batch(2, 3)).to_pylist()
    assert out[0]["half"] == 1
    assert out[1]["half"] is None
    assert (out[1]["error_stage"], out[1]["error_reason"]) == ("Half", "ValueError: 3 is odd")


def test_later_stages_pass_rows_in_error_by() -> None:
    once = Half()(make_batch(3))
    twice = Half()(once)
    assert twice.to_pylist() == once.to_pylist()


def test_machine_trouble_is_raised_not_quarantined() -> None:
    with pytest.raises(ConnectionError):
        Half()(make_batch(4))


def test_reason_has_an_end() -> None:
    class Endless(Half):
        def process(self, row: Row) -> Row:
            raise ValueError(f"{row['number']}" * 100_000)

    assert len(Endless()(make_batch(2)).to_pylist()[0]["error_reason"]) == 1000


def test_empty_batch_keeps_its_schema() -> None:
    assert Half()(make_batch(2).slice(0, 0)).schema == Half()(make_batch(2)).schema
