"""True masks in the place of computed ones."""

import pyarrow as pa

from raypipe import storage
from raypipe.schema import MASKS
from raypipe.stages.base import Row, Stage


class LoadTrueMasks(Stage):
    """The true mask as it is stored, without confidence."""

    reads = ("mask_uri",)
    writes = pa.schema([MASKS.field("mask"), MASKS.field("confidence")])
    drops = ("mask_uri",)

    def process(self, row: Row) -> Row:
        """Reads the file."""
        return {"mask": storage.read_bytes(row["mask_uri"]), "confidence": None}
