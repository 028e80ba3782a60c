"""Fetches an image and makes sure that every later stage can decode it."""

from collections.abc import Sequence

import pyarrow as pa

from raypipe import storage
from raypipe.data.images import decode_image
from raypipe.data.manifest import class_ids_of
from raypipe.stages.base import Row, Stage


class DecodeImages(Stage):
    """Image bytes, sizes and class ids of a manifest row.

    The bytes travel on as they are, not the pixels: a JPEG is some 20 times smaller, and decoding it costs less than
    moving the pixels between processes.
    """

    reads = ("image_id", "image_uri", "labels")
    writes = pa.schema(
        [
            pa.field("image", pa.binary()),
            pa.field("height", pa.int32()),
            pa.field("width", pa.int32()),
            pa.field("original_height", pa.int32()),
            pa.field("original_width", pa.int32()),
            pa.field("class_ids", pa.list_(pa.uint8())),
        ]
    )

    def __init__(self, *, classes: tuple[str, ...] | None, max_side: int) -> None:
        """`classes` None: labels aren't looked at, and no image has class ids."""
        self.classes = classes
        self.max_side = max_side

    def process_all(self, rows: Sequence[Row]) -> list[Row]:
        """Fetches the images of all rows at once: from an object store, waiting takes most of the time."""
        wanted = [row["image_uri"] for row in rows if row.get("error_stage") is None and row["image_uri"]]
        contents = storage.read_many(set(wanted))
        return super().process_all([row | {"content": contents.get(row["image_uri"])} for row in rows])

    def process(self, row: Row) -> Row:
        """Reads and checks one image.

        Raises:
            ValueError: for null or unknown labels, an image that can't be decoded, a row without `image_uri`.
            OSError: if the image can't be fetched.
        """
        if self.classes is not None and row["labels"] is None:
            raise ValueError("labels are null; give the class names that the image shows, or an empty list for none")
        if not row["image_uri"]:
            raise ValueError("image_uri is empty; give the image's path or URI")
        class_ids = [] if self.classes is None else class_ids_of(row["labels"], self.classes)
        data = row["content"] if "content" in row else storage.read_bytes(row["image_uri"])
        if isinstance(data, Exception):
            raise data
        image = decode_image(data, max_side=self.max_side)
        height, width = image.pixels.shape[:2]
        return {
            "image": data,
            "height": height,
            "width": width,
            "original_height": image.original_height,
            "original_width": image.original_width,
            "class_ids": class_ids,
        }
