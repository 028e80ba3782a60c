"""Writes corrected masks, and puts them into an existing manifest."""

import posixpath
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from raypipe import storage, uri
from raypipe.data.images import encode_png
from raypipe.data.manifest import Manifest, nearest
from raypipe.data.names import file_stem
from raypipe.schema import SUPERVISED
from raypipe.words import counted


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
            f"of no row of the manifest: {counted(len(unknown), 'masks')}, such as "
            f"{unknown[0]!r}{nearest(unknown[0], ids)}"
        )
    table = manifest.table
    for name, new in (("mask_uri", masks), ("supervision", dict.fromkeys(masks, SUPERVISED))):
        old = table[name].to_pylist()
        values = [new.get(image_id, value) for image_id, value in zip(ids, old, strict=True)]
        index = table.schema.get_field_index(name)
        table = table.set_column(index, table.schema.field(name), [pa.array(values, pa.string())])
    return Manifest(table, manifest.classes)


class Corrections:
    """Corrected masks on their way into the manifest that they were made from, and what was left out, by reason.

    A row is found by its id, its path, or its name with or without ending.
    """

    def __init__(self, manifest: Manifest, masks: str) -> None:
        """Starts with no mask.

        Args:
            manifest: whose rows get the masks.
            masks: URI of the folder to write masks into.
        """
        self.manifest, self.masks = manifest, masks
        self.skipped: dict[str, list[str]] = {}
        self._found: dict[str, str] = {}
        self._ids = manifest.table["image_id"].to_pylist()
        self._known = set(self._ids)
        self._places = dict(zip(self._ids, manifest.table["image_uri"].to_pylist(), strict=True))
        self._by_name: dict[str, set[str]] = {}
        for image_id, place in self._places.items():
            names = {image_id, file_stem(image_id)}
            if place is not None:
                base = uri.name_of(place)
                names |= {place, base, posixpath.splitext(base)[0]}
            for name in filter(None, names):
                self._by_name.setdefault(name, set()).add(image_id)

    def row_of(self, image_id: object, file_name: str, *, place: str) -> str | None:
        """Returns the id of the row that is meant; None, with a note, where none is, or several may be.

        Args:
            image_id: the id that the file gives, if it does.
            file_name: the image's name or path in the other program.
            place: where it stands, for the note.
        """
        if isinstance(image_id, str) and image_id in self._known:
            return image_id
        base = posixpath.basename(file_name)
        for name in (file_name, posixpath.splitext(file_name)[0], base, posixpath.splitext(base)[0]):
            found = self._by_name.get(name, set())
            if len(found) > 1:  # a path from a folder further up may tell them apart
                found = {one for one in found if (self._places[one] or "").endswith(f"/{file_name}")} or found
            if len(found) == 1:
                return next(iter(found))
            if found:
                several = f"{place}: {file_name[:200]!r} may be the rows {', '.join(sorted(found)[:3])}"
                self.leave_out("masks that may belong to several rows", [several])
                return None
        # The nearest name is looked for once: in a large manifest it takes long.
        hint = "" if _ALIEN in self.skipped else nearest(file_name, self._ids)
        self.leave_out(_ALIEN, [f"{place}: {file_name[:200]!r} belongs to no row of the manifest{hint}"])
        return None

    def add(self, image_id: str, mask: NDArray[np.uint8]) -> None:
        """Writes the mask (H, W) of a row."""
        self.add_written(image_id, write_mask(mask, self.masks, image_id))

    def add_written(self, image_id: str, place: str) -> None:
        """Takes a mask that is written already."""
        if image_id in self._found:
            self.leave_out("masks of rows that have a later one in the same file", [image_id])
        self._found[image_id] = place

    def leave_out(self, reason: str, names: Sequence[str]) -> None:
        """Notes what was left out."""
        if names:
            self.skipped.setdefault(reason, []).extend(names)

    def merged(self) -> Manifest:
        """Returns the manifest with the masks.

        Raises:
            ValueError: there was something, and all of it was left out.
        """
        reasons = [one for names in self.skipped.values() for one in names]
        if reasons and not self._found:
            more = f" ({len(reasons) - 1:,} more were left out, too)" if len(reasons) > 1 else ""
            raise ValueError(f"none of the masks can be taken: {reasons[0]}{more}")
        return with_masks(self.manifest, self._found)


_ALIEN = "masks that belong to no row of the manifest"


def write_mask(mask: NDArray[np.uint8], folder: str, image_id: str) -> str:
    """Writes a corrected mask (H, W) into a folder, named after its image; returns its URI."""
    place = uri.absolute(storage.join(folder, f"{file_stem(image_id)}.png"))
    storage.write_bytes_atomic(place, encode_png(mask))
    return place
