"""Reads back `images.csv`, in which every export says what the manifest says of its images."""

import csv
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from raypipe import storage, uri
from raypipe.data.images import decode_mask
from raypipe.formats.base import IMAGE_LIST, IMAGE_LIST_COLUMNS
from raypipe.schema import BACKGROUND, IGNORE

READERS = 16
"""Masks that are read at the same time."""


def read_exported(root: str) -> list[dict[str, Any]] | None:
    """Returns the rows of an export's `images.csv`; None if the folder has none.

    Args:
        root: absolute URI of the export's folder.

    Returns:
        Rows in the manifest's order, with `image_id`, `labels` (a list, or None) and `split` as the manifest had them;
        `image_uri`, the file in the export where that is there, else the image's URI; `mask`, the path of its mask
        below the root, or None where that isn't there; `height` and `width` of the mask.

    Raises:
        ValueError: the file is damaged.
    """
    place = storage.join(root, IMAGE_LIST)
    if not storage.exists(place):
        return None
    text = storage.read_bytes(place).decode("utf-8-sig")
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if not set(IMAGE_LIST_COLUMNS) <= set(reader.fieldnames or ()):
        return None  # another program's
    there = {uri.relative(one, root) for one in storage.list_files(root)}
    try:
        rows = [_row(cells, there) for cells in reader]
    except (csv.Error, ValueError, TypeError) as error:
        raise ValueError(f"{place}, up to line {reader.line_num}: {error}") from error
    return sorted(rows, key=lambda row: row["number"])


def _row(cells: dict[str, str], there: set[str | None]) -> dict[str, Any]:
    labels = json.loads(cells["labels"]) if cells["labels"] else None
    if labels is not None and not (isinstance(labels, list) and all(isinstance(label, str) for label in labels)):
        raise ValueError(f"expected a list of class names as labels, got {cells['labels'][:80]!r}")
    return {
        "image_id": cells["image_id"],
        "image_uri": cells["file"] if cells["file"] in there else cells["image_uri"],
        "labels": labels,
        "split": cells["split"] or None,
        "mask": cells["mask"] if cells["mask"] in there else None,
        "height": int(cells["height"]),
        "width": int(cells["width"]),
        "number": int(cells["number"]),
    }


def labels_of_masks(
    masks: Sequence[str | None], classes: Sequence[str] | None
) -> tuple[list[list[str] | None], list[str]]:
    """Returns the names of the classes in masks, as labels of images that have no other, and masks that can't be read.

    Args:
        masks: absolute URIs; None has no labels.
        classes: names of the ids from 1 on; None gives no labels.

    Raises:
        ValueError: a mask holds an id that no class has.
    """
    unreadable: list[str] = []
    if classes is None:
        return [None] * len(masks), unreadable

    def labels(place: str | None) -> list[str] | None:
        if place is None:
            return None
        try:
            found = decode_mask(storage.read_bytes(place))
        except (ValueError, FileNotFoundError) as error:
            unreadable.append(f"{place}: {error}")
            return None
        ids = [int(value) for value in np.unique(found) if value not in (BACKGROUND, IGNORE)]
        if unknown := [value for value in ids if value > len(classes)]:
            raise ValueError(
                f"{place} has the values {unknown[:5]}, but there are {len(classes)} classes: complete their list"
            )
        return [classes[value - 1] for value in ids]

    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(labels, masks)), unreadable
