"""Puts corrected masks into an existing manifest."""

from collections.abc import Mapping

import pyarrow as pa

from raypipe.data.manifest import Manifest, nearest

MASK_SUPERVISION = "mask"
"""Value of `supervision` for images whose `mask_uri` may be trained on."""


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
    for name, new in (("mask_uri", masks), ("supervision", dict.fromkeys(masks, MASK_SUPERVISION))):
        old = table[name].to_pylist()
        values = [new.get(image_id, value) for image_id, value in zip(ids, old, strict=True)]
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), [pa.array(values, pa.string())])
    return Manifest(table, manifest.classes)
