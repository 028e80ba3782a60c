"""Writes corrected masks, and puts them into an existing manifest."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest, nearest
from raypipe.data.names import file_stem
from raypipe.schema import SUPERVISED
from raypipe.uri import absolute, join


def with_masks(manifest: Manifest, masks: Mapping[str, str]) -> Manifest:
    """Returns the manifest with new masks: the named rows get `mask_uri` and `supervision`, all else stays.

    Args:
        manifest: the manifest, whose order is kept.
        masks: URI of each mask, by `image_id`.

    Raises:
        ValueError: an `image_id` isn't in the manifest.
    """
    ids = manifest.table["image_id"].to_pylist()
    if unknown := sorted(masks.keys() - set(ids)):
        raise ValueError(
            f"{len(unknown)} masks belong to no row of the manifest, such as {unknown[0]!r}{nearest(unknown[0], ids)}"
        )
    table = manifest.table
    for name, new in (("mask_uri", masks), ("supervision", dict.fromkeys(masks, SUPERVISED))):
        old = table[name].to_pylist()
        values = [new.get(image_id, value) for image_id, value in zip(ids, old, strict=True)]
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), [pa.array(values, pa.string())])
    return Manifest(table, manifest.classes)


def write_mask(mask: NDArray[np.uint8], folder: str, image_id: str) -> str:
    """Writes a corrected mask (H, W) into a folder, named after its image; returns its URI."""
    uri = join(absolute(folder), f"{file_stem(image_id)}.png")
    storage.write_bytes_atomic(uri, encode_png(mask))
    return uri
