"""Exports a Hugging Face dataset: Parquet with `Image` features.

    datasets.load_dataset("OUT")                                                     # all splits
    datasets.load_dataset("parquet", data_files="OUT/data/val-*.parquet")

The schema metadata `huggingface` holds the features, and the header of README.md the splits, as a dataset repository on
the Hub needs it. `mask` holds class ids with 255 ignored, `confidence` 0..255. `classes` are those in the mask,
`labels` and `split` what the manifest says of the image. An image that isn't copied is stored as its URI, which
`datasets` opens on access; `image_uri` is the same URI as text.
"""

import json
import re
from contextlib import AbstractContextManager, ExitStack
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from raypipe import storage
from raypipe.data.images import encode_png
from raypipe.formats.base import ExportedRow, Format, Item, MaskRow, Rendered, Rows, write_text

IMAGE, MASK, CONFIDENCE, META = "image", "mask", "confidence", "meta"
BYTES_PER_FILE = 500_000_000
"""Approximate size of a file, as the Hub advises."""
ROWS_PER_GROUP = 100
BYTES_PER_GROUP = 30_000_000
"""`datasets` reads whole groups of rows, and writing keeps one group of each split in memory."""

PICTURES = ("image", "mask", "confidence")
SCHEMA = pa.schema(
    {
        "image_id": pa.string(),
        **dict.fromkeys(PICTURES, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "classes": pa.list_(pa.int64()),
        "labels": pa.list_(pa.int64()),
        "split": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "image_uri": pa.string(),
    }
)


class HuggingFace(Format):
    """`data/<split>-<number>.parquet`, `README.md`; images, if exported, in the Parquet files."""

    def render(self, row: MaskRow) -> Rendered:
        """Returns the row's parts."""
        items = [Item(META, json.dumps({"classes": row.class_ids}).encode()), Item(MASK, encode_png(row.mask))]
        if row.confidence is not None:
            items.append(Item(CONFIDENCE, encode_png(row.confidence)))
        if row.image is not None:
            items.append(Item(IMAGE, row.image))
        return Rendered(items=items)

    def finish(self, rows: Rows, out: str) -> None:
        """Writes the Parquet files, one group of rows after another."""
        schema = SCHEMA.with_metadata({b"huggingface": json.dumps({"info": {"features": self.features()}}).encode()})
        writers: dict[str, _SplitWriter] = {}
        with ExitStack() as stack:
            for row in rows():
                name = _split_name(row.folder)
                if name not in writers:
                    writers[name] = stack.enter_context(_SplitWriter(storage.join(out, "data", name), schema))
                writers[name].add(self._to_dict(row))
        files = [f"  - split: {name}\n    path: data/{name}-*.parquet" for name in sorted(writers)]
        head = ["---", "configs:", "- config_name: default", "  data_files:", *files, "---", ""]
        text = "Masks made by raypipe: 0 is background, 255 ignored; the other values' names are those of `classes`.\n"
        write_text(out, "README.md", "\n".join([*head, text]))

    def features(self) -> dict[str, Any]:
        """Returns the description of the columns that `datasets` reads."""
        plain = {name: {"dtype": str(SCHEMA.field(name).type), "_type": "Value"} for name in SCHEMA.names}
        pictures = {name: {"_type": "Image"} for name in PICTURES}
        names = {"names": ["background", *self.classes], "_type": "ClassLabel"}
        return plain | pictures | {name: [names] for name in ("classes", "labels")}

    def _to_dict(self, row: ExportedRow) -> dict[str, Any]:
        parts = {item.kind: item.data for item in row.items}
        image = parts.get(IMAGE)
        path = self.image_path(row) if image is None else self.image_name(row)
        confidence = parts.get(CONFIDENCE)
        ids = {name: number for number, name in enumerate(self.classes, start=1)}
        return {
            "image_id": row.image_id,
            "image": {"bytes": image, "path": path},
            "mask": {"bytes": parts[MASK], "path": None},
            "confidence": None if confidence is None else {"bytes": confidence, "path": None},
            "labels": None if row.labels is None else [ids[label] for label in row.labels if label in ids],
            "split": row.split,
            "height": row.height,
            "width": row.width,
            "image_uri": row.image_uri,
            **json.loads(parts[META]),
        }


_RESERVED_SPLITS = ("all",)


def _split_name(folder: str) -> str:
    """Returns the split's name in letters, digits and underscores, which is all that `datasets` allows."""
    name = re.sub(r"\W", "_", folder)
    return f"{name}_" if name in _RESERVED_SPLITS else name


class _SplitWriter(AbstractContextManager["_SplitWriter"]):
    """Writes the files of one split; after an error, the unfinished file doesn't appear."""

    def __init__(self, prefix: str, schema: pa.Schema) -> None:
        self.prefix = prefix
        self.schema = schema
        self.rows: list[dict[str, Any]] = []
        self.buffered = 0
        self.number = 0
        self.file: AbstractContextManager[IO[bytes]] | None = None
        self.written = 0
        self.parquet: pq.ParquetWriter | None = None

    def add(self, row: dict[str, Any]) -> None:
        """Adds a row, and writes the group if it is full."""
        self.rows.append(row)
        self.buffered += sum(len(row[name]["bytes"] or b"") for name in PICTURES if row[name])
        if len(self.rows) == ROWS_PER_GROUP or self.buffered > BYTES_PER_GROUP:
            self._write_group()

    def __exit__(self, *error: Any) -> None:
        if error[0] is None and self.rows:
            self._write_group()
        self._close(*error)

    def _write_group(self) -> None:
        if self.file is None:
            self.file = storage.writing(f"{self.prefix}-{self.number:05d}.parquet")
            self.parquet = pq.ParquetWriter(self.file.__enter__(), self.schema)
        assert self.parquet is not None
        self.parquet.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
        self.written += self.buffered
        self.rows, self.buffered = [], 0
        if self.written > BYTES_PER_FILE:
            self._close(None, None, None)

    def _close(self, *error: Any) -> None:
        if self.file is not None and self.parquet is not None:
            self.parquet.close()
            self.file.__exit__(*error)
            self.file, self.parquet, self.written = None, None, 0
            self.number += 1
