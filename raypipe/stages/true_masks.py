"""True masks in the place of computed ones."""

from dataclasses import dataclass

import pyarrow as pa

from raypipe import storage
from raypipe.data.truth import check_truth
from raypipe.schema import MASKS
from raypipe.stages.base import Kind, Row, Stage


@dataclass(kw_only=True)
class LoadTrueMasks(Stage):
    """The true mask's file as it is, without confidence."""

    num_classes: int
    """With background."""

    reads = ("mask_uri",)
    writes = pa.schema([MASKS.field("mask"), MASKS.field("confidence")])

    @property
    def kind(self) -> Kind:
        """Waits for storage."""
        return "fetch"

    def process(self, row: Row) -> Row:
        """Fetches and checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255.
        """
        data = storage.read_bytes(row["mask_uri"])
        check_truth(data, num_classes=self.num_classes)
        return {"mask": data, "confidence": None}
