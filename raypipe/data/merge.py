"""Corrected masks into a manifest that is there already."""

from collections.abc import Mapping

import pyarrow as pa

from raypipe.data.manifest import Manifest, nearest

MASK_SUPERVISION = "mask"
"""Value of `supervision` for images whose `mask_uri` may be trained on."""


def with_masks(manifest: Manifest, masks: Mapping[str, str]) -> Manifest:
    """The manifest with other masks: rows that are named get `mask_uri` and `supervision`, all else stays.

    Args:
        manifest: rows in their order.
        masks: URI of each mask, by `image_id`.

    Raises:
        ValueError: if an `image_id` isn't in the manifest.
    """
    ids = manifest.table["image_id"].to_pylist()
    if unknown := sorted(masks.keys() - set(ids)):
        raise ValueError(
            f"{len(unknown)} masks are of no row of the manifest, such as {unknown[0]!r}{nearest(unknown[0], ids)}"
        )
    table = manifest.table
    for name, new in (("mask_uri", masks), ("supervision", dict.fromkeys(masks, MASK_SUPERVISION))):
        old = table[name].to_pylist()
        values = [new.get(image_id, value) for image_id, value in zip(ids, old, strict=True)]
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), [pa.array(values, pa.string())])
    return Manifest(table, manifest.classes)
