"""True masks in the place of computed ones."""

import pyarrow as pa

from raypipe import storage
from raypipe.data.truth import check_truth
from raypipe.schema import MASKS
from raypipe.stages.base import Row, Stage


class LoadTrueMasks(Stage):
    """The true mask's file as it is, without confidence.

    Args:
        num_classes: with background.
    """

    reads = ("mask_uri",)
    writes = pa.schema([MASKS.field("mask"), MASKS.field("confidence")])
    drops = ("mask_uri",)

    def __init__(self, *, num_classes: int) -> None:
        self.num_classes = num_classes

    def process(self, row: Row) -> Row:
        """Fetches and checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255.
        """
        data = storage.read_bytes(row["mask_uri"])
        check_truth(data, num_classes=self.num_classes)
        return {"mask": data, "confidence": None}
