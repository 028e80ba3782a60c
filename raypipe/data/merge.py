"""Writes corrected masks, and puts them into an existing manifest."""

import posixpath
from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest, nearest
from raypipe.data.names import file_stem
from raypipe.schema import SUPERVISED


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


class RowsByName:
    """Finds the row of a file that another program names: by its id, its path, or its name with or without ending."""

    def __init__(self, manifest: Manifest) -> None:
        ids = manifest.table["image_id"].to_pylist()
        self._ids = set(ids)
        self._by_name: dict[str, list[str]] = {}
        for image_id, place in zip(ids, manifest.table["image_uri"].to_pylist(), strict=True):
            names = (
                {place, image_id, file_stem(image_id)}
                if place is None
                else {
                    *(
                        place,
                        image_id,
                        file_stem(image_id),
                        uri.name_of(place),
                        posixpath.splitext(uri.name_of(place))[0],
                    ),
                }
            )
            for name in names:
                if name:
                    self._by_name.setdefault(name, []).append(image_id)

    def id_of(self, image_id: object, file_name: str, *, place: str) -> str:
        """Returns the id of a row.

        Args:
            image_id: the id that the file gives, if it does.
            file_name: the image's name or path in the other program.
            place: where it stands, for the message.

        Raises:
            ValueError: no row is meant, or several may be.
        """
        if isinstance(image_id, str) and image_id in self._ids:
            return image_id
        base = posixpath.basename(file_name)
        for name in (file_name, posixpath.splitext(file_name)[0], base, posixpath.splitext(base)[0]):
            found = self._by_name.get(name, [])
            if len(found) == 1:
                return found[0]
            if found:
                raise ValueError(f"{place}: {file_name[:200]!r} may be the rows {', '.join(found[:3])}")
        raise ValueError(
            f"{place}: {file_name[:200]!r} belongs to no row of the manifest{nearest(file_name, sorted(self._ids))}"
        )


def write_mask(mask: NDArray[np.uint8], folder: str, image_id: str) -> str:
    """Writes a corrected mask (H, W) into a folder, named after its image; returns its URI."""
    place = uri.absolute(storage.join(folder, f"{file_stem(image_id)}.png"))
    storage.write_bytes_atomic(place, encode_png(mask))
    return place
