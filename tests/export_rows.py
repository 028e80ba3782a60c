"""Masks of every kind for exports and importers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raypipe.data.names import file_stem
from raypipe.formats.base import ExportedRow, Item, MaskRow

CLASSES = ("cat", "dog", 'a & b "c" ü')


def make_mask(seed: int, *, height: int = 37, width: int = 52) -> NDArray[np.uint8]:
    """Blobs with holes, parts that touch at corners, single pixels, an ignored border."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 4, (height // 6 + 1, width // 6 + 1), np.uint8).repeat(6, 0).repeat(6, 1)[:height, :width]
    specks = rng.random((height, width)) < 0.05
    mask = np.where(specks, rng.integers(0, 4, (height, width), np.uint8), coarse).astype(np.uint8)
    mask[:, -2:] = 255
    mask[10:14, 20:26] = 255
    return mask


MASKS = {
    "plain": make_mask(0),
    "sub/odd id ü": make_mask(1, height=20, width=33),
    "empty": np.zeros((11, 7), np.uint8),
    "ignored": np.full((5, 6), 255, np.uint8),
    "one": np.full((9, 4), 2, np.uint8),
    "background and ignore": np.array([[0, 255], [0, 0]], np.uint8),
}
SPLITS = ("train", "val")


def labels_of(image_id: str) -> tuple[str, ...] | None:
    """What the manifest says: the classes of the mask; nobody looked at one image, and one shows more than its mask."""
    names = tuple(CLASSES[value - 1] for value in np.unique(MASKS[image_id]).tolist() if 0 < value < 255)
    return {"ignored": None, "one": ("cat", "dog")}.get(image_id, names)


def make_rows(**changes: Any) -> list[MaskRow]:
    return [
        MaskRow(
            image_id=image_id,
            number=number,
            image_uri=f"s3://bucket/images/{file_stem(image_id)}.PNG",
            folder=SPLITS[number % 2],
            split=SPLITS[number % 2],
            labels=labels_of(image_id),
            mask=mask,
            confidence=np.full(mask.shape, 51, np.uint8),
            **changes,
        )
        for number, (image_id, mask) in enumerate(MASKS.items(), start=1)
    ]


def exported_row(row: MaskRow, items: Sequence[Item]) -> ExportedRow:
    """The row after it was rendered."""
    names = ("image_id", "number", "image_uri", "folder", "split", "labels")
    height, width = row.mask.shape
    return ExportedRow(**{name: getattr(row, name) for name in names}, height=height, width=width, items=items)
