"""Fetches images and makes sure that their headers can be read."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from raypipe import storage
from raypipe.data.manifest import class_ids_of
from raypipe.data.opening import check_header
from raypipe.stages.base import Row, Stage


@dataclass(kw_only=True)
class FetchImages(Stage):
    """Image bytes and class ids of a manifest row.

    The bytes travel on as they are, not the pixels: a JPEG is some 20 times smaller, and decoding it costs less than
    moving the pixels between processes. What is wrong with the pixels is found where they are first decoded.
    """

    classes: tuple[str, ...] | None
    """Class names in class-id order; None doesn't look at labels, and gives no image a class id."""
    labels_needed: bool = True
    """Null labels are an error; false gives such an image no class id."""

    kind = "fetch"
    writes = pa.schema([pa.field("image", pa.binary()), pa.field("class_ids", pa.list_(pa.uint8()))])

    @property
    def reads(self) -> tuple[str, ...]:
        """Labels only where they matter."""
        return ("image_id", "image_uri", *(() if self.classes is None else ("labels",)))

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches the images of all rows at once: from an object store, waiting takes most of the time."""
        wanted = {row["image_uri"] for row in rows if row.get("error_stage") is None and row["image_uri"]}
        contents = storage.read_many(wanted)
        return super().process_all([row | {"content": contents.get(row["image_uri"])} for row in rows])

    def process(self, row: Row) -> Row:
        """Checks one image's labels and header.

        Raises:
            ValueError: for null or unknown labels, a header that can't be read, a row without `image_uri`.
            OSError: if the image can't be fetched.
        """
        class_ids = self.labels_of(row)
        data = row.pop("content")
        if isinstance(data, Exception):
            raise data
        check_header(data)
        return {"image": data, "class_ids": class_ids}

    def labels_of(self, row: Row) -> list[int]:
        """Class ids of a row's labels.

        Raises:
            ValueError: for null or unknown labels, a row without `image_uri`.
        """
        classes, labels = self.classes, row.get("labels")
        if classes is not None and labels is None and self.labels_needed:
            raise ValueError("labels are null; give the class names that the image shows, or an empty list for none")
        if not row["image_uri"]:
            raise ValueError("image_uri is empty; give the image's path or URI")
        return [] if classes is None or labels is None else class_ids_of(labels, classes)
