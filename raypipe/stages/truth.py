"""Fetches true masks."""

import pyarrow as pa

from raypipe import storage
from raypipe.stages.base import Row, Stage
from raypipe.stages.evaluate import check_truth


class LoadTruths(Stage):
    """`truth`: the true mask's file."""

    reads = ("mask_uri",)
    writes = pa.schema([pa.field("truth", pa.binary())])

    def __init__(self, *, num_classes: int) -> None:
        self.num_classes = num_classes

    def process(self, row: Row) -> Row:
        """Fetches and checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255.
        """
        data = storage.read_bytes(row["mask_uri"])
        check_truth(data, num_classes=self.num_classes)
        return {"truth": data}
