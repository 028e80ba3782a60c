"""True masks in the place of computed ones."""

from dataclasses import dataclass

from raypipe import storage
from raypipe.data.truth import check_truth
from raypipe.schema import MASKS, columns
from raypipe.stages.base import Row, Stage


@dataclass(kw_only=True)
class LoadTrueMasks(Stage):
    """The true mask's file as it is, without confidence."""

    num_classes: int
    """With background."""

    reads = ("mask_uri",)
    writes = columns(MASKS, "mask", "confidence")
    kind = "fetch"

    def process(self, row: Row) -> Row:
        """Fetches and checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255.
        """
        data = storage.read_bytes(row["mask_uri"])
        check_truth(data, num_classes=self.num_classes)
        return {"mask": data, "confidence": None}
