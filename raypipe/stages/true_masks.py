"""True masks in the place of computed ones."""

from collections.abc import Sequence
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

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches the masks of all rows at once: from an object store, waiting takes most of the time."""
        contents = storage.read_many({row["mask_uri"] for row in rows if row.get("error_stage") is None})
        return super().process_all([row | {"content": contents.get(row["mask_uri"])} for row in rows])

    def process(self, row: Row) -> Row:
        """Checks one mask.

        Raises:
            ValueError: if a value is neither a class id nor 255.
            OSError: if the mask can't be fetched.
        """
        data = row.pop("content")
        if isinstance(data, Exception):
            raise data
        check_truth(data, num_classes=self.num_classes)
        return {"mask": data, "confidence": None}
