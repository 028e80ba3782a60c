"""What both checkouts are given and print."""

import json
import time
from collections.abc import Sequence

import pyarrow as pa

CLASSES = ("cat", "dog", "horse")
MAP_BYTES = 48_000
"""Of a row's class activation maps, as measured on photographs of PASCAL VOC's size."""
MASK_BYTES = 115_000
SECONDS_A_ROW = 0.02
MOMENTS = pa.schema([pa.field("started", pa.float64()), pa.field("ended", pa.float64())])
"""Columns: when the network began and ended with the rows that it had together with this one."""


def manifest_rows(uris: Sequence[str], number: int) -> pa.Table:
    """Rows that share some images."""
    return pa.table(
        {
            "image_id": [f"{index:06d}" for index in range(number)],
            "image_uri": [uris[index % len(uris)] for index in range(number)],
            "labels": pa.array([[CLASSES[index % 3]] for index in range(number)], pa.list_(pa.string())),
            "split": ["train"] * number,
            "mask_uri": pa.nulls(number, pa.string()),
        }
    )


def slept(number: int) -> dict[str, float]:
    """Sleeps for so many rows; the values of `MOMENTS`."""
    started = time.time()
    time.sleep(SECONDS_A_ROW * number)
    return {"started": started, "ended": time.time()}


def tell(seconds: float, moments: pa.Table) -> None:
    """Prints what was measured, as the last line of the output.

    Args:
        seconds: of the whole stream.
        moments: the columns of `MOMENTS` of all rows.
    """
    window = max(moments["ended"].to_pylist()) - min(moments["started"].to_pylist())
    print(json.dumps({"rows": moments.num_rows, "seconds": seconds, "window": window}))
